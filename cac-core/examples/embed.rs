//! cac-core inside another program: sign in, ask for a container, print its log until it is made.
//!
//! `cargo run -p cac-core --example embed -- alice debian my-first 8080` with the variables of the README's table set.

use cac_core::config::{Config, Program, environment};
use cac_core::container::{self, NewContainer};
use cac_core::job::Happening;
use cac_core::pve::Secret;
use cac_core::user::{self, SignIn};
use cac_core::{Core, job};
use tokio_util::sync::CancellationToken;

type AnyError = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [username, os, hostname, port] = words.as_slice() else {
        return Err("usage: embed USER OS HOSTNAME PORT, the password on standard input".into());
    };
    let core = Core::start(Config::load(&environment()?, Program::Http)?).await?;
    let stop = CancellationToken::new();
    let runner = tokio::spawn(job::runner::run(core.clone(), stop.clone()));

    let mut password = String::new();
    std::io::stdin().read_line(&mut password)?;
    let password = Secret::new(password.trim_end());
    let SignIn::Done { actor, .. } = user::sign_in(&core, username, &password, None, None).await?
    else {
        return Err("this account has a second factor; sign in on the web".into());
    };
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
    stop.cancel();
    runner.await?;
    Ok(())
}
