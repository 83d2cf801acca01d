//! Killed after every statement, before and after its record, and continued: the same schema in the end.

use cac_core::schema::{self, MigrationState};
use cac_core::testing::{self, TestDb};

use crate::common::{columns, counts, details, original};

/// Upwards, killed twice at each statement: once with its work done and not recorded, once with both.
async fn up_with_kills(database: &TestDb) -> usize {
    let mut kills = 0;
    while schema::up_stopping_after(&database.db, 1, true)
        .await
        .is_err()
        && schema::up_stopping_after(&database.db, 1, false)
            .await
            .is_err()
    {
        kills += 1;
        assert!(kills < 500, "{}: no progress", database.name);
    }
    kills
}

async fn down_with_kills(database: &TestDb) -> usize {
    let mut kills = 0;
    while schema::down_stopping_after(&database.db, 1, true)
        .await
        .is_err()
        && schema::down_stopping_after(&database.db, 1, false)
            .await
            .is_err()
    {
        kills += 1;
        assert!(kills < 500, "{}: no progress", database.name);
        let states = schema::status(&database.db).await.unwrap();
        if states[1].state == MigrationState::Pending {
            break;
        }
    }
    kills
}

#[tokio::test]
async fn a_fresh_database_that_is_killed_at_every_statement_ends_whole() {
    let whole = testing::databases().await;
    for (database, whole) in testing::empty_databases().await.iter().zip(&whole) {
        let kills = up_with_kills(database).await;
        assert!(kills >= 10, "{}: only {kills} kills", database.name);
        assert_eq!(
            columns(&database.db).await,
            columns(&whole.db).await,
            "{}",
            database.name
        );
        let states = schema::status(&database.db).await.unwrap();
        assert!(
            states
                .iter()
                .all(|status| matches!(status.state, MigrationState::Applied(_))),
            "{states:?}"
        );
        if database.name == "mariadb" {
            assert_eq!(details(&database.db).await, details(&whole.db).await);
        }
    }
}

#[tokio::test]
async fn an_adoption_that_is_killed_at_every_statement_ends_whole() {
    let whole = original().await;
    schema::up(&whole.db).await.unwrap();
    let database = original().await;
    let kills = up_with_kills(&database).await;
    assert!(kills >= 10, "only {kills} kills");
    assert_eq!(details(&database.db).await, details(&whole.db).await);
    assert_eq!(counts(&database.db).await, counts(&whole.db).await);
}

#[tokio::test]
async fn an_undoing_that_is_killed_at_every_statement_is_finished_by_either_direction() {
    let whole = testing::databases().await;
    for (database, whole) in testing::databases().await.iter().zip(&whole) {
        let kills = down_with_kills(database).await;
        assert!(kills >= 5, "{}: only {kills} kills", database.name);
        schema::up(&database.db).await.unwrap();
        assert_eq!(
            columns(&database.db).await,
            columns(&whole.db).await,
            "{}",
            database.name
        );
        // Half undone, then up: the undoing is finished first.
        for title in testing::migrations()[2..].iter().rev() {
            assert_eq!(schema::down(&database.db).await.unwrap(), *title);
        }
        schema::down_stopping_after(&database.db, 3, false)
            .await
            .unwrap_err();
        let states = schema::status(&database.db).await.unwrap();
        assert_eq!(states[1].state, MigrationState::Undoing);
        schema::up(&database.db).await.unwrap();
        assert_eq!(
            columns(&database.db).await,
            columns(&whole.db).await,
            "{}",
            database.name
        );
    }
}

/// What stands half-way is told, and not undone by mistake; a mere start does not finish an adoption.
#[tokio::test]
async fn a_half_way_is_told() {
    for database in testing::empty_databases().await {
        schema::up_stopping_after(&database.db, 2, false)
            .await
            .unwrap_err();
        let states = schema::status(&database.db).await.unwrap();
        assert!(
            matches!(states[0].state, MigrationState::Partly { done: 2, .. }),
            "{states:?}"
        );
        let refused = schema::down(&database.db).await.unwrap_err().to_string();
        assert!(refused.contains("run `cac migrate up` first"), "{refused}");
        schema::start(&database.db).await.unwrap();
    }
    let database = original().await;
    schema::up_stopping_after(&database.db, 4, false)
        .await
        .unwrap_err();
    for refused in [
        schema::start(&database.db).await.unwrap_err().to_string(),
        schema::down(&database.db).await.unwrap_err().to_string(),
    ] {
        assert!(
            refused.contains("interrupted: run `cac migrate up` again"),
            "{refused}"
        );
    }
    schema::up(&database.db).await.unwrap();
}
