//! cac-core inside another program: make a container, say where it is reached, delete it again.
//!
//! `cargo run -p cac-core --example embed -- USER OS HOSTNAME PORT` with the variables of the README's table set, beside or instead of our programs.

use std::time::Duration;

use cac_core::config::{Config, Program, environment};
use cac_core::container::{self, NewContainer};
use cac_core::job::Happening;
use cac_core::{Actor, Core, job};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [username, os, hostname, port] = words.as_slice() else {
        return Err("usage: embed USER OS HOSTNAME PORT".into());
    };
    let core = Core::start(Config::load(&environment()?, Program::Http)?).await?;
    let stop = CancellationToken::new();
    // Any number of runners of one database share the work.
    let runner = tokio::spawn(job::runner::run(core.clone(), stop.clone()));

    // Whoever embeds the library says who acts; `user::sign_in` asks Proxmox VE instead.
    let actor = Actor::new(username, false);
    let new = NewContainer {
        hostname: hostname.clone(),
        os_release: os.clone(),
        http_port: Some(port.parse()?),
        ..NewContainer::default()
    };
    let created = container::create(&core, &actor, &new, None).await?;
    let mut progress = job::follow(&core, created.job_id, 0);
    while let Some(happened) = progress.next().await {
        for happening in happened {
            if let Happening::Output(chunk) = happening {
                print!("{}", chunk.output);
            }
        }
    }
    let made = container::find(&core, &actor, created.id).await?;
    println!("It is reached at {:?}.", core.config.reach().url(&made));

    container::delete(&core, &actor, made.id, Duration::from_secs(60)).await?;
    println!("It is gone.");
    stop.cancel();
    Ok(runner.await?)
}
