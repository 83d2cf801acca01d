//! What unpacking a template comes to: the command line that error texts name, and which system it turns out to be.

use std::collections::BTreeMap;

use crate::task::Worker;

/// Finds out what was unpacked, by the name of the file.
pub(super) fn detect_system(worker: &Worker, file: &str, config: &mut BTreeMap<String, String>) {
    let name = file.split(['-', '_']).next().unwrap_or_default();
    let ostype = match name {
        "debian" | "ubuntu" | "alpine" | "fedora" | "archlinux" | "devuan" | "gentoo" | "nixos"
        | "opensuse" => name,
        "rockylinux" | "almalinux" | "centos" => "centos",
        _ => "unmanaged",
    };
    if ostype == "unmanaged" && !config.contains_key("ostype") {
        for line in [
            "/etc/os-release file not found and autodetection failed, falling back to 'unmanaged'",
            "implement me in sub-class",
            " at /usr/share/perl5/PVE/LXC/Setup.pm line 146.",
            "Architecture detection failed: error in setup task (eval)",
            "Falling back to amd64.",
            "Use `pct set VMID --arch ARCH` to change.",
        ] {
            worker.log(line);
        }
    } else {
        warn_if_new(worker, file);
        worker.log("Detected container architecture: amd64");
    }
    config
        .entry("ostype".to_owned())
        .or_insert_with(|| ostype.to_owned());
    config
        .entry("arch".to_owned())
        .or_insert_with(|| "amd64".to_owned());
}

fn warn_if_new(worker: &Worker, file: &str) {
    let version = file
        .strip_prefix("debian-")
        .and_then(|rest| rest.split(['-', '_']).next())
        .and_then(|text| text.parse::<u32>().ok());
    if let Some(version) = version.filter(|version| *version > 14) {
        worker.log(format!(
            "WARN: The container's Debian version '{version}' is newer than the tested version '14'. While everything may work fine, full compatibility cannot be guaranteed. Please check for PVE system updates."
        ));
    }
}

/// The command that unpacks, as error texts name it.
pub(super) fn tar(template: &str, vmid: u32, unprivileged: bool) -> String {
    let user = if unprivileged {
        "lxc-usernsexec -m u:0:100000:65536 -m g:0:100000:65536 -- "
    } else {
        ""
    };
    let packer = match template.rsplit('.').next() {
        Some("xz") => "-J",
        Some("gz") => "-z",
        Some("bz2") => "-j",
        _ => "--zstd",
    };
    format!(
        "command '{user}tar xpf - {packer} --totals --one-file-system -p --sparse --numeric-owner --acls --xattrs '--xattrs-include=user.*' '--xattrs-include=security.capability' '--warning=no-file-ignored' '--warning=no-xattr-write' -C /var/lib/lxc/{}/rootfs --skip-old-files --anchored --exclude './dev/*''",
        vmid
    )
}
