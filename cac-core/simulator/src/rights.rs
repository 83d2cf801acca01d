//! Who may do what: roles, the access control list, pools, token separation. Not the permission expressions of calls (see `permission`).

use std::collections::{BTreeMap, BTreeSet};

use crate::world::{AclKind, World};

/// Every privilege of Proxmox VE 8.4.
pub(crate) const PRIVILEGES: [&str; 42] = [
    "Datastore.Allocate",
    "Datastore.AllocateSpace",
    "Datastore.AllocateTemplate",
    "Datastore.Audit",
    "Group.Allocate",
    "Mapping.Audit",
    "Mapping.Modify",
    "Mapping.Use",
    "Permissions.Modify",
    "Pool.Allocate",
    "Pool.Audit",
    "Realm.Allocate",
    "Realm.AllocateUser",
    "SDN.Allocate",
    "SDN.Audit",
    "SDN.Use",
    "Sys.AccessNetwork",
    "Sys.Audit",
    "Sys.Console",
    "Sys.Incoming",
    "Sys.Modify",
    "Sys.PowerMgmt",
    "Sys.Syslog",
    "User.Modify",
    "VM.Allocate",
    "VM.Audit",
    "VM.Backup",
    "VM.Clone",
    "VM.Config.CDROM",
    "VM.Config.CPU",
    "VM.Config.Cloudinit",
    "VM.Config.Disk",
    "VM.Config.HWType",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.Console",
    "VM.Migrate",
    "VM.Monitor",
    "VM.PowerMgmt",
    "VM.Snapshot",
    "VM.Snapshot.Rollback",
];

/// Built-in roles with their privileges.
const ROLES: [(&str, &str); 15] = [
    ("NoAccess", ""),
    ("PVEPoolAdmin", "Pool.Allocate,Pool.Audit"),
    ("PVETemplateUser", "VM.Audit,VM.Clone"),
    ("PVESDNAdmin", "SDN.Allocate,SDN.Audit,SDN.Use"),
    ("PVEPoolUser", "Pool.Audit"),
    ("PVESDNUser", "SDN.Audit,SDN.Use"),
    (
        "PVEVMUser",
        "VM.Audit,VM.Backup,VM.Config.CDROM,VM.Config.Cloudinit,VM.Console,VM.PowerMgmt",
    ),
    ("PVESysAdmin", "Sys.Audit,Sys.Console,Sys.Syslog"),
    (
        "PVEDatastoreUser",
        "Datastore.AllocateSpace,Datastore.Audit",
    ),
    (
        "PVEAuditor",
        "Datastore.Audit,Mapping.Audit,Pool.Audit,SDN.Audit,Sys.Audit,VM.Audit",
    ),
    (
        "PVEMappingAdmin",
        "Mapping.Audit,Mapping.Modify,Mapping.Use",
    ),
    ("PVEMappingUser", "Mapping.Audit,Mapping.Use"),
    (
        "PVEUserAdmin",
        "Group.Allocate,Realm.AllocateUser,User.Modify",
    ),
    (
        "PVEDatastoreAdmin",
        "Datastore.Allocate,Datastore.AllocateSpace,Datastore.AllocateTemplate,Datastore.Audit",
    ),
    (
        "PVEVMAdmin",
        "VM.Allocate,VM.Audit,VM.Backup,VM.Clone,VM.Config.CDROM,VM.Config.CPU,\
VM.Config.Cloudinit,VM.Config.Disk,VM.Config.HWType,VM.Config.Memory,VM.Config.Network,\
VM.Config.Options,VM.Console,VM.Migrate,VM.Monitor,VM.PowerMgmt,VM.Snapshot,VM.Snapshot.Rollback",
    ),
];

/// What an Administrator has and a PVEAdmin has not.
const ADMINISTRATOR_ONLY: [&str; 7] = [
    "Mapping.Modify",
    "Permissions.Modify",
    "Realm.Allocate",
    "Sys.AccessNetwork",
    "Sys.Incoming",
    "Sys.Modify",
    "Sys.PowerMgmt",
];

/// The caller: a user, or one of the user's API tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) user: String,
    pub(crate) token: Option<String>,
}

impl Who {
    pub(crate) fn user(name: &str) -> Self {
        Self {
            user: name.to_owned(),
            token: None,
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        let (user, token) = match text.split_once('!') {
            Some((user, token)) => (user, Some(token.to_owned())),
            None => (text, None),
        };
        Self {
            user: user.to_owned(),
            token,
        }
    }

    /// `user@realm` or `user@realm!token`, the form tasks and the access control list use.
    pub(crate) fn id(&self) -> String {
        match &self.token {
            Some(token) => format!("{}!{token}", self.user),
            None => self.user.clone(),
        }
    }

    /// Only the ticket of `root@pam` is the super user, no token and no role is.
    pub(crate) fn is_root(&self) -> bool {
        self.user == "root@pam" && self.token.is_none()
    }
}

/// Privilege to whether it holds below the path as well.
pub(crate) type Privileges = BTreeMap<String, bool>;

/// All roles with their privileges, built-in ones first.
pub(crate) fn roles(world: &World) -> Vec<(String, BTreeSet<String>, bool)> {
    let builtin = ["Administrator", "PVEAdmin"]
        .into_iter()
        .chain(ROLES.iter().map(|(name, _)| *name));
    let own = world
        .roles
        .iter()
        .map(|(n, p)| (n.clone(), p.clone(), false));
    builtin
        .map(|name| (name.to_owned(), role(world, name).unwrap_or_default(), true))
        .chain(own)
        .collect()
}

/// The privileges of a role; nothing for an unknown one.
pub(crate) fn role(world: &World, name: &str) -> Option<BTreeSet<String>> {
    let all = || PRIVILEGES.into_iter();
    match name {
        "Administrator" => Some(all().map(str::to_owned).collect()),
        "PVEAdmin" => Some(
            all()
                .filter(|p| !ADMINISTRATOR_ONLY.contains(p))
                .map(str::to_owned)
                .collect(),
        ),
        _ => ROLES
            .iter()
            .find(|(builtin, _)| *builtin == name)
            .map(|(_, list)| crate::params::split_list(list).into_iter().collect())
            .or_else(|| world.roles.get(name).cloned()),
    }
}

/// The rights of a caller on a path.
pub(crate) fn privileges(world: &World, who: &Who, path: &str) -> Privileges {
    let Some(user) = world.users.get(&who.user) else {
        return Privileges::new();
    };
    let owner = Who::user(&who.user);
    let Some(name) = &who.token else {
        return expand(world, &owner, path);
    };
    let Some(token) = user.tokens.get(name) else {
        return Privileges::new();
    };
    let of_user = expand(world, &owner, path);
    if !token.privsep {
        return of_user;
    }
    let mut of_token = expand(world, who, path);
    of_token.retain(|privilege, _| of_user.contains_key(privilege));
    of_token
}

/// Rights from the roles on the path and, for members of a pool, on the pool.
fn expand(world: &World, who: &Who, path: &str) -> Privileges {
    let mut roles = roles_on(world, who, path);
    if roles.contains_key("NoAccess") {
        return Privileges::new();
    }
    for pool in pools_of(world, path) {
        for (role, propagate) in roles_on(world, who, &format!("/pool/{pool}")) {
            roles.entry(role).or_insert(propagate);
        }
    }
    let mut privileges = Privileges::new();
    for (name, propagate) in roles {
        for privilege in role(world, &name).unwrap_or_default() {
            *privileges.entry(privilege).or_default() |= propagate;
        }
    }
    privileges
}

fn pools_of<'a>(world: &'a World, path: &str) -> Vec<&'a String> {
    let guest = path.strip_prefix("/vms/").and_then(|id| id.parse().ok());
    let storage = path.strip_prefix("/storage/");
    world
        .pools
        .iter()
        .filter(|(_, pool)| {
            guest.is_some_and(|vmid| pool.guests.contains(&vmid))
                || storage.is_some_and(|name| pool.storages.contains(name))
        })
        .map(|(name, _)| name)
        .collect()
}

/// Roles from the root of the tree down to the path; each level replaces the one above.
fn roles_on(world: &World, who: &Who, path: &str) -> BTreeMap<String, bool> {
    if who.is_root() {
        return BTreeMap::from([("Administrator".to_owned(), true)]);
    }
    let mut roles = BTreeMap::new();
    for level in levels(path) {
        let last = level == path;
        let found = entries_on(world, who, &level, last);
        if !found.is_empty() {
            roles = found;
        }
    }
    if roles.contains_key("NoAccess") {
        roles.retain(|role, _| role == "NoAccess");
    }
    roles
}

fn levels(path: &str) -> Vec<String> {
    let mut levels = vec!["/".to_owned()];
    let mut level = String::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        level = format!("{level}/{part}");
        levels.push(level.clone());
    }
    levels
}

/// Entries of one level: a token's own, else the user's own, else those of the user's groups.
fn entries_on(world: &World, who: &Who, level: &str, last: bool) -> BTreeMap<String, bool> {
    let of = |kind: AclKind, names: &dyn Fn(&str) -> bool| -> BTreeMap<String, bool> {
        world
            .acl
            .iter()
            .filter(|e| e.path == level && e.kind == kind && names(&e.who))
            .filter(|e| last || e.propagate)
            .map(|e| (e.role.clone(), e.propagate))
            .collect()
    };
    let id = who.id();
    if who.token.is_some() {
        return of(AclKind::Token, &|name| name == id);
    }
    let own = of(AclKind::User, &|name| name == id);
    if !own.is_empty() {
        return own;
    }
    let groups = world.users.get(&who.user).map(|user| &user.groups);
    of(AclKind::Group, &|name| {
        groups.is_some_and(|groups| groups.contains(name))
    })
}

/// All paths on which the caller may have rights: the top ones, those of the list, and members of pools.
pub(crate) fn paths(world: &World) -> BTreeSet<String> {
    let top = [
        "/",
        "/access",
        "/access/groups",
        "/mapping",
        "/nodes",
        "/pool",
        "/sdn",
        "/storage",
        "/vms",
    ];
    let mut paths: BTreeSet<String> = top.map(str::to_owned).into();
    paths.extend(world.acl.iter().map(|entry| entry.path.clone()));
    for pool in world.pools.values() {
        paths.extend(pool.guests.iter().map(|vmid| format!("/vms/{vmid}")));
        paths.extend(pool.storages.iter().map(|name| format!("/storage/{name}")));
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{AclEntry, User};

    fn world(entries: &[(&str, AclKind, &str, &str, bool)]) -> World {
        let mut world = World::new(&["pve1".to_owned()], "secret");
        let bob = User {
            enable: true,
            groups: BTreeSet::from(["admins".to_owned()]),
            ..User::default()
        };
        world.users.insert("bob@pve".to_owned(), bob);
        for (path, kind, who, role, propagate) in entries {
            world.acl.push(AclEntry {
                path: (*path).to_owned(),
                kind: *kind,
                who: (*who).to_owned(),
                role: (*role).to_owned(),
                propagate: *propagate,
            });
        }
        world
    }

    fn has(world: &World, path: &str, privilege: &str) -> bool {
        privileges(world, &Who::user("bob@pve"), path).contains_key(privilege)
    }

    #[test]
    fn deeper_entry_replaces_the_inherited_one() {
        let world = world(&[
            ("/", AclKind::Group, "admins", "Administrator", true),
            ("/vms/105", AclKind::User, "bob@pve", "PVEVMUser", true),
        ]);
        assert!(has(&world, "/vms/104", "VM.Allocate"));
        assert!(!has(&world, "/vms/105", "VM.Allocate"));
        assert!(has(&world, "/vms/105", "VM.Audit"));
    }

    #[test]
    fn entry_without_propagation_counts_on_its_own_path_only() {
        let world = world(&[("/vms", AclKind::User, "bob@pve", "PVEAuditor", false)]);
        assert!(has(&world, "/vms", "VM.Audit"));
        assert!(!has(&world, "/vms/100", "VM.Audit"));
    }

    #[test]
    fn no_access_beats_everything_on_its_level() {
        let world = world(&[
            ("/vms", AclKind::User, "bob@pve", "PVEVMAdmin", true),
            ("/vms", AclKind::User, "bob@pve", "NoAccess", true),
        ]);
        assert!(privileges(&world, &Who::user("bob@pve"), "/vms/100").is_empty());
    }
}
