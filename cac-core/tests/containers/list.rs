//! Lists of containers: what is searched for, and names that are free.

use cac_core::container::{self, Filter};
use cac_core::testing::databases;
use cac_core::{Actor, audit};

use crate::lab::{core, web};

#[tokio::test]
async fn a_search_looks_at_everything_that_people_know_and_has_no_wildcards() {
    for database in databases().await {
        let core = core(&database, &[("pve1", None)]).await;
        let local = Actor::local();
        for number in 1..=3 {
            let mut new = web(number);
            if number == 3 {
                "bob_x".clone_into(&mut new.username);
                "ubuntu".clone_into(&mut new.os_release);
            }
            container::register(&core, &local, &new).await.unwrap();
        }
        let found = async |actor: &Actor, search: &str| {
            let filter = Filter {
                all: true,
                search: Some(search.to_owned()),
                limit: 10,
                ..Filter::default()
            };
            let (rows, total) = container::list(&core, actor, &filter).await.unwrap();
            assert_eq!(rows.len(), usize::try_from(total).unwrap());
            rows.iter().map(|row| row.id).collect::<Vec<_>>()
        };
        for (search, ids) in [
            ("WEB2", vec![2]),
            ("Ubuntu", vec![3]),
            ("BOB", vec![3]),
            ("127.9.0.1", vec![1]),
            (" web ", vec![1, 2, 3]),
            ("", vec![1, 2, 3]),
            ("_", vec![3]),
            ("%", vec![]),
            ("!", vec![]),
            ("web'--", vec![]),
        ] {
            assert_eq!(
                found(&local, search).await,
                ids,
                "{} {search}",
                database.name
            );
        }
        let alice = Actor::new("alice", false);
        assert_eq!(found(&alice, "web").await, [1, 2], "{}", database.name);

        let (history, count) = audit::of_container(&core, &alice, 1, 5).await.unwrap();
        assert_eq!(count, 1, "{}", database.name);
        assert_eq!(history[0].action, "container_create", "{}", database.name);
        audit::of_container(&core, &alice, 3, 5).await.unwrap_err();
        let name = container::suggest(&core).await.unwrap();
        assert!(container::is_label(&name) && name.contains('-'), "{name}");
    }
}
