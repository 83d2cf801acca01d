//! Named tasks: programs from the administrator's file, without a shell, for those whom it allows.

use std::io::Write as _;

use cac_core::job::{self, Status, Wanted, Work};
use cac_core::task::Values;
use cac_core::{Error, testing};
use chrono::{Duration, Utc};

use crate::lab::{Lab, admin, alice};

const FILE: &str = r#"
    [tasks.greet]
    argv = ["/bin/echo", "hello {who}"]
    allow = "everyone"
    [tasks.greet.parameters.who]

    [tasks.secret]
    argv = ["/bin/true"]

    [tasks.slow]
    argv = ["/bin/sleep", "600"]
    time_limit_seconds = 1

    [tasks.flaky]
    argv = ["/bin/sh", "-c", "echo x >> {file}; test $(wc -l < {file}) -ge 3 || exit 75"]
    retry_on = [75]
    retries = 5
    retry_after_seconds = 0
    [tasks.flaky.parameters.file]

    [tasks.hopeless]
    argv = ["/bin/sh", "-c", "exit 75"]
    retry_on = [75]
    retries = 2
    retry_after_seconds = 0
"#;

async fn lab(database: testing::TestDb) -> (Lab, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(FILE.as_bytes()).unwrap();
    let more = [("JOB_TASKS_FILE", file.path().to_str().unwrap())];
    (Lab::with(database, &more).await, file)
}

fn values(pairs: &[(&str, &str)]) -> Values {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn wanted<'a>(name: &'a str, values: &'a Values) -> Wanted<'a> {
    Wanted {
        work: Work::Task(name, values),
        start_after: None,
        key: None,
    }
}

#[tokio::test]
async fn a_task_runs_with_its_parameters_and_no_shell_sees_them() {
    for database in testing::databases().await {
        let (lab, _file) = lab(database).await;
        lab.runner();
        let given = values(&[("who", "$(id); `id` > /dev/null 'x")]);
        let asked = job::ask(&lab.core, &alice(), wanted("greet", &given))
            .await
            .unwrap();
        assert_eq!(asked.kind.as_deref(), Some("task"));
        assert_eq!(asked.command, "# greet who=$(id); `id` > /dev/null 'x");
        assert_eq!(lab.job(asked.id).await.status, Status::Success);
        assert_eq!(
            lab.log(asked.id).await,
            "hello $(id); `id` > /dev/null 'x\n"
        );
        lab.end().await;
    }
}

#[tokio::test]
async fn what_is_not_allowed_or_unknown_is_refused_alike() {
    let (lab, _file) = lab(testing::databases().await.swap_remove(0)).await;
    let none = Values::new();
    let (alice, admin) = (alice(), admin());
    let refused =
        async |actor, name, given| match job::ask(&lab.core, actor, wanted(name, given)).await {
            Err(Error::Invalid(fields)) => fields.to_string(),
            other => panic!("{other:?}"),
        };
    for name in ["secret", "nothing"] {
        let told = refused(&alice, name, &none).await;
        assert_eq!(
            told,
            format!("task: There is no task `{name}` that you may start; there is greet.")
        );
    }
    let told = refused(&admin, "greet", &none).await;
    assert_eq!(told, "parameters: `who` is required.");
    job::ask(&lab.core, &admin, wanted("secret", &none))
        .await
        .unwrap();
    let far = Wanted {
        start_after: Some(Utc::now() + Duration::days(4000)),
        ..wanted("secret", &none)
    };
    let told = job::ask(&lab.core, &admin, far)
        .await
        .unwrap_err()
        .to_string();
    assert!(told.contains("within a year"), "{told}");
    lab.end().await;
}

#[tokio::test]
async fn limits_and_retries_are_the_tasks_own() {
    for database in testing::databases().await {
        let (lab, _file) = lab(database).await;
        lab.runner();
        let dir = tempfile::tempdir().unwrap();
        let count = dir.path().join("count");
        let given = values(&[("file", count.to_str().unwrap())]);
        let none = Values::new();
        let ask = async |name, given| {
            job::ask(&lab.core, &admin(), wanted(name, given))
                .await
                .unwrap()
                .id
        };
        let (slow, flaky, hopeless) = (
            ask("slow", &none).await,
            ask("flaky", &given).await,
            ask("hopeless", &none).await,
        );
        let reason = lab.job(slow).await.reason.unwrap();
        assert_eq!(
            reason,
            "The command was ended after 1 s (time_limit_seconds of the task `slow`)."
        );
        assert_eq!(lab.job(flaky).await.status, Status::Success);
        assert_eq!(std::fs::read_to_string(&count).unwrap(), "x\nx\nx\n");
        let job = lab.job(hopeless).await;
        assert_eq!(job.status, Status::Failure);
        assert_eq!(
            lab.log(hopeless)
                .await
                .matches("It will be tried again")
                .count(),
            2
        );
        lab.end().await;
    }
}

/// The key of a request stands for its parameters and its time, too.
#[tokio::test]
async fn a_key_stands_for_one_request() {
    let (lab, _file) = lab(testing::databases().await.swap_remove(0)).await;
    let (one, other) = (values(&[("who", "a")]), values(&[("who", "b")]));
    let keyed = |values| Wanted {
        key: Some("once"),
        ..wanted("greet", values)
    };
    let first = job::ask(&lab.core, &alice(), keyed(&one)).await.unwrap();
    let again = job::ask(&lab.core, &alice(), keyed(&one)).await.unwrap();
    assert_eq!(first.id, again.id);
    for wanted in [
        keyed(&other),
        Wanted {
            start_after: Some(Utc::now()),
            ..keyed(&one)
        },
    ] {
        let refused = job::ask(&lab.core, &alice(), wanted).await;
        assert!(
            matches!(refused, Err(Error::Conflict { .. })),
            "{refused:?}"
        );
    }
    lab.end().await;
}
