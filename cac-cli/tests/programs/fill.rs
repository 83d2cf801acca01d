//! Containers in quantity, written into the database.

use std::ops::Range;

use cac_core::args;
use cac_core::db::Db;
use chrono::Utc;

/// One for each number, with a service for the web and one for ssh; `owner` says whose it is.
pub(crate) async fn containers(db: &Db, numbers: Range<i64>, owner: impl Fn(i64) -> &'static str) {
    let now = Utc::now() - chrono::Duration::hours(1);
    let mut tx = db.write().await.unwrap();
    let rows = numbers.clone().map(|n| {
        let (address, mac) = (
            format!("127.50.{}.{}", n / 250, n % 250 + 1),
            format!("BC:24:11:50:{:02X}:{:02X}", n / 256, n % 256),
        );
        args![
            format!("c{n}"),
            address,
            owner(n),
            "debian",
            1000 + n,
            mac,
            "N",
            2_i64,
            2048_i64,
            8_i64,
            now,
            now
        ]
    });
    let sql = r#"INSERT INTO "Containers" ("hostname", "ipv4Address", "username", "osRelease", "containerId", "macAddress", "aiContainer", "nodeId",
                                           "cores", "memory", "disk", "createdAt", "updatedAt")
                 VALUES (?, ?, ?, ?, ?, ?, ?, (SELECT MIN("id") FROM "Nodes"), ?, ?, ?, ?, ?)"#;
    tx.insert_all(sql, rows.collect()).await.unwrap();
    let service =
        |n: i64, kind: &'static str, port: i64, outside: Option<i64>, name: Option<String>| {
            let container = format!("c{n}");
            args![kind, port, outside, name, now, now, container]
        };
    let both = numbers.flat_map(|n| {
        [
            service(n, "http", 8080, None, Some(format!("c{n}"))),
            service(n, "tcp", 22, Some(4222 + n), None),
        ]
    });
    let sql = r#"INSERT INTO "Services" ("type", "internalPort", "externalPort", "externalHostname", "createdAt", "updatedAt", "containerId")
                 VALUES (?, ?, ?, ?, ?, ?, (SELECT "id" FROM "Containers" WHERE "hostname" = ?))"#;
    for values in both {
        tx.exec(sql, values).await.unwrap();
    }
    tx.commit().await.unwrap();
}
