//! Between a portal and its reverse proxy: whoever sits there can hold a file back, and nothing else. And on the proxy's machine: what
//! talks to the network has no rights, and what has rights takes nothing that the portal did not sign.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::front::{Front, borrowed};
use crate::lab::{Running, good, own_address, run, text, until};

async fn front() -> Front {
    Front::new(&["one", "two", "three"].map(str::to_owned)).await
}

/// Adds a name, and waits until every answer of the portal has it: a file is good there for half a second.
async fn add_shown(front: &Front, name: &str) {
    front.add(name).await;
    let shown = format!("{name}.proxy.test");
    until("the portal's file has the name", async || {
        let file = front.portal.get("/nginx.conf", &front.admin).await;
        file.text().await.unwrap().contains(&shown).then_some(())
    })
    .await;
}

/// What somebody on the way does with the portal's files.
#[derive(Debug, Clone, PartialEq)]
enum Attack {
    None,
    /// Has requests for this name go to an address of their own, and says the right entity tag.
    Change,
    /// Sends what the portal sent before.
    Replay,
    /// Asks for another proxy's file.
    OtherProxy,
    /// Takes the signature away.
    Strip,
}

#[derive(Default)]
struct Sent {
    head: String,
    body: String,
}

/// Somebody between the portal and a puller.
struct Man {
    url: String,
    attack: Arc<Mutex<Attack>>,
    /// The first whole file.
    first: Arc<Mutex<Option<Sent>>>,
}

impl Man {
    async fn between(portal: SocketAddr) -> Self {
        let listener = TcpListener::bind((own_address(), 0)).await.unwrap();
        let man = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            attack: Arc::new(Mutex::new(Attack::None)),
            first: Arc::default(),
        };
        let (attack, first) = (Arc::clone(&man.attack), Arc::clone(&man.first));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (attack, first) = (Arc::clone(&attack), Arc::clone(&first));
                tokio::spawn(async move {
                    let attack = attack.lock().unwrap().clone();
                    pass(client, portal, attack, &first).await
                });
            }
        });
        man
    }

    fn does(&self, attack: Attack) {
        *self.attack.lock().unwrap() = attack;
    }

    /// As a timer pulls, through this man.
    fn once(&self, front: &Front, more: &[(&'static str, String)]) -> (bool, String) {
        let file = front.file().display().to_string();
        let words = ["proxy", "sync", "--once", "--file", &file, "--name", "here"];
        let mut vars = front.puller_vars(&front.token);
        vars.push(("CAC_URL", self.url.clone()));
        vars.extend(more.iter().cloned());
        let done = run("cac", &words, &borrowed(&vars));
        (done.status.success(), text(&done.stderr))
    }
}

async fn read_head(stream: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> std::io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

fn header(head: &str, name: &str) -> Option<String> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let mut found = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| value.trim().to_owned())
}

fn without(head: &str, name: &str) -> String {
    let keeps = |line: &&str| !line.to_lowercase().starts_with(&format!("{name}:"));
    let lines: Vec<&str> = head.trim_end().split("\r\n").filter(keeps).collect();
    lines.join("\r\n") + "\r\n\r\n"
}

async fn pass(
    client: TcpStream,
    portal: SocketAddr,
    attack: Attack,
    first: &Mutex<Option<Sent>>,
) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    let mut head = read_head(&mut client).await?;
    let size = header(&head, "content-length").map_or(0, |size| size.parse().unwrap());
    let mut body = vec![0; size];
    client.read_exact(&mut body).await?;
    let file = head.starts_with("GET /nginx.conf");
    if file && attack == Attack::OtherProxy {
        head = head.replace("proxy=here", "proxy=there");
    }
    head = without(&head, "connection").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let mut server = BufReader::new(TcpStream::connect(portal).await?);
    server.write_all(head.as_bytes()).await?;
    server.write_all(&body).await?;
    let mut head = read_head(&mut server).await?;
    let size = header(&head, "content-length").map_or(0, |size| size.parse().unwrap());
    let mut body = vec![0; size];
    server.read_exact(&mut body).await?;
    let mut body = String::from_utf8(body).unwrap();
    if file && head.starts_with("HTTP/1.1 200") {
        match attack {
            Attack::Change => {
                body = body.replace(
                    "proxy_pass http://$cac_upstream",
                    "proxy_pass http://127.6.6.6:80",
                );
                let tag = cac_core::nginx::etag(&body);
                head = without(&without(&head, "etag"), "content-length");
                let more = format!("\r\nETag: {tag}\r\nContent-Length: {}\r\n\r\n", body.len());
                head = head.replace("\r\n\r\n", &more);
            }
            Attack::Replay => {
                if let Some(sent) = &*first.lock().unwrap() {
                    (head, body) = (sent.head.clone(), sent.body.clone());
                }
            }
            Attack::Strip => head = without(&without(&head, "cac-signature"), "cac-statement"),
            Attack::None | Attack::OtherProxy => {}
        }
        let mut first = first.lock().unwrap();
        if first.is_none() {
            let (head, body) = (head.clone(), body.clone());
            *first = Some(Sent { head, body });
        }
    }
    client.write_all(head.as_bytes()).await?;
    client.write_all(body.as_bytes()).await?;
    client.shutdown().await
}

async fn reason_of(front: &Front) -> Value {
    let proxies = front.portal.get("/proxies", &front.admin).await;
    let proxies = crate::portal::json(proxies, 200).await;
    let mut all = proxies.as_array().unwrap().iter();
    let here = all.find(|proxy| proxy["name"] == "here").unwrap();
    here["reason"].clone()
}

/// M3: whoever sat between the portal and a proxy wrote nginx' file, and with it was root there.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_sits_between_changes_nothing_and_is_reported() {
    let front = front().await;
    let man = Man::between((front.ip, 3000).into()).await;
    add_shown(&front, "one").await;
    let (done, said) = man.once(&front, &[]);
    assert!(done, "{said}");
    front.browser.until("one.proxy.test", 200).await;
    add_shown(&front, "two").await;
    let (done, said) = man.once(&front, &[]);
    assert!(done, "{said}");
    front.browser.until("two.proxy.test", 200).await;
    add_shown(&front, "three").await;

    let good = std::fs::read_to_string(front.file()).unwrap();
    let mine = cac_core::nginx::SigningKey::from_seed("3fa2c1d0", &[7; 32]);
    let mine = vec![("CAC_PROXY_KEY", mine.public().to_string())];
    let none = vec![("CAC_PROXY_KEY", String::new())];
    for (attack, vars, words) in [
        (
            Attack::Change,
            vec![],
            "The file was changed on its way here",
        ),
        (Attack::Replay, vec![], "The file is older (revision"),
        (
            Attack::OtherProxy,
            vec![],
            "The file was signed for the proxy there",
        ),
        (Attack::Strip, vec![], "The portal sent no signature"),
        (Attack::None, mine, "is not by a pinned key"),
        (Attack::None, none, "No key is pinned on this machine"),
    ] {
        man.does(attack.clone());
        let (done, said) = man.once(&front, &vars);
        assert!(!done && said.contains(words), "{attack:?}: {said}");
        assert_eq!(std::fs::read_to_string(front.file()).unwrap(), good);
        let reason = reason_of(&front).await;
        let reason = reason.as_str().unwrap();
        assert!(reason.contains(words), "{attack:?}: {reason}");
        front.browser.until("two.proxy.test", 200).await;
    }
    man.does(Attack::None);
    let (done, said) = man.once(&front, &[]);
    assert!(done, "{said}");
    front.browser.until("three.proxy.test", 200).await;
    assert_eq!(reason_of(&front).await, Value::Null);
    front.nginx.stop();
}

/// The portal itself, in the hands of somebody else, or only set up for another machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_good_signature_makes_no_path_good() {
    let mut front = front().await;
    front.add("one").await;
    let done = front.once(&front.token);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let good = std::fs::read_to_string(front.file()).unwrap();
    let outside = tempfile::tempdir().unwrap();
    let log = outside.path().join("log").display().to_string();
    front.set("NGINX_ERROR_LOG", &log).await;
    let done = front.once(&front.token);
    let said = text(&done.stderr);
    let words = "says what cac never writes, so it is refused: line";
    assert!(
        !done.status.success() && said.contains(words) && said.contains("CAC_PROXY_LOGS"),
        "{said}"
    );
    assert_eq!(std::fs::read_to_string(front.file()).unwrap(), good);
    assert!(!std::path::Path::new(&log).exists());
    front.browser.until("one.proxy.test", 200).await;
    front.nginx.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_and_a_backup_is_restored_without_a_gap() {
    let front = front().await;
    let local = |words: &[&str]| good("cac", words, &borrowed(&front.vars)).trim().to_owned();
    let pull = |key: &str| {
        let mut vars = front.puller_vars(&front.token);
        vars.push(("CAC_PROXY_KEY", key.to_owned()));
        let file = front.file().display().to_string();
        let words = ["proxy", "sync", "--once", "--file", &file, "--name", "here"];
        let done = run("cac", &words, &borrowed(&vars));
        (done.status.success(), text(&done.stderr))
    };
    let old = local(&["proxy", "key", "show", "--local"]);
    assert_eq!(old, front.key);
    add_shown(&front, "one").await;
    let (done, said) = pull(&old);
    assert!(done, "{said}");
    let new = local(&["proxy", "key", "new"]);
    let both = local(&["proxy", "key", "show", "--local"]);
    assert_eq!(both, format!("{old},{new}"));
    local(&["proxy", "key", "activate"]);
    add_shown(&front, "two").await;
    let (done, said) = pull(&old);
    assert!(!done && said.contains("is not by a pinned key"), "{said}");
    let (done, said) = pull(&both);
    assert!(done, "{said}");
    front.browser.until("two.proxy.test", 200).await;

    // The database of yesterday: its revisions are behind what this proxy has.
    let order = front.dir.path().join("nginx.conf.cac-order");
    let newest = std::fs::read_to_string(&order).unwrap();
    let mut newest: Value = serde_json::from_str(&newest).unwrap();
    newest["revision"] = json!(1_000_000);
    std::fs::write(&order, newest.to_string()).unwrap();
    add_shown(&front, "three").await;
    let (done, said) = pull(&new);
    assert!(!done && said.contains("run `cac proxy epoch`"), "{said}");
    front.browser.until("two.proxy.test", 200).await;
    local(&["proxy", "epoch"]);
    let (done, said) = pull(&new);
    assert!(done, "{said}");
    front.browser.until("three.proxy.test", 200).await;
    front.nginx.stop();
}

/// The helper and a puller that may do nothing on this machine, where the tests may take rights away from it.
struct Apart {
    helper: Running,
    socket: std::path::PathBuf,
}

impl Apart {
    fn helper(front: &Front) -> Self {
        let socket = front.dir.path().join("apply.sock");
        let words = front.machine_words(&["proxy", "apply", "--listen", socket.to_str().unwrap()]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let vars = front.puller_vars("");
        Self {
            helper: Running::start("cac", &words, &borrowed(&vars)),
            socket,
        }
    }

    fn puller(&self, front: &Front) -> Running {
        let socket = self.socket.display().to_string();
        let mut words: Vec<&str> = vec![];
        let root = rustix::process::geteuid().is_root();
        if root {
            words.extend(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
            words.extend(["--bounding-set=-all", "--no-new-privs"]);
            words.push(env!("CARGO_BIN_EXE_cac"));
        }
        words.extend([
            "proxy",
            "sync",
            "--name",
            "here",
            "--interval",
            "0.2",
            "--helper",
            &socket,
        ]);
        let vars = front.puller_vars(&front.token);
        let program = if root { "/usr/bin/setpriv" } else { "cac" };
        Running::start(program, &words, &borrowed(&vars))
    }

    fn ask(&self, question: &Value) -> Value {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.write_all(question.to_string().as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap_or(Value::Null)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_puller_without_rights_serves_and_its_helper_believes_nothing() {
    let front = front().await;
    // The way to the socket, and nothing else.
    std::fs::set_permissions(front.dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let apart = Apart::helper(&front);
    let mut puller = apart.puller(&front);
    let one = front.add("one").await;
    front.stands(one, "live").await;
    front.browser.until("one.proxy.test", 200).await;
    let file = std::fs::read_to_string(front.file()).unwrap();

    // Somebody has taken the puller over: it says to the helper what it likes.
    let evil = file.replace("events {", "load_module /tmp/evil.so;\nevents {");
    let fetched = front
        .portal
        .get("/nginx.conf?proxy=there", &front.admin)
        .await;
    let theirs = ["cac-statement", "cac-signature"]
        .map(|name| fetched.headers()[name].to_str().unwrap().to_owned());
    let theirs = json!({"statement": theirs[0], "signature": theirs[1]});
    let theirs_text = fetched.text().await.unwrap();
    for (text, signed, reason) in [
        (&evil, Value::Null, "Unverified"),
        (&evil, theirs.clone(), "Unverified"),
        (&theirs_text, theirs, "Unverified"),
    ] {
        let answer = apart.ask(&json!({"apply": {"text": text, "signed": signed}}));
        assert_eq!(answer["applied"]["Failed"]["reason"], reason, "{answer}");
        assert_eq!(std::fs::read_to_string(front.file()).unwrap(), file);
    }
    for nonsense in [json!({}), json!("stop"), json!({"apply": {}}), json!([1])] {
        assert_eq!(apart.ask(&nonsense), Value::Null);
    }
    // Connections that say nothing keep nobody away.
    let silent: Vec<UnixStream> = (0..4)
        .map(|_| UnixStream::connect(&apart.socket).unwrap())
        .collect();
    let two = front.add("two").await;
    front.stands(two, "live").await;
    drop(silent);

    // Either of them is killed, at any moment: the other goes on with whoever comes next.
    let mut helper = apart;
    for n in 0..4u64 {
        front.add(&format!("k{n}")).await;
        tokio::time::sleep(Duration::from_millis(30 + 40 * n)).await;
        if n % 2 == 0 {
            helper.helper.signal(Signal::KILL);
            helper.helper.ended();
            let file = std::fs::read_to_string(front.file()).unwrap();
            cac_core::testing::nginx::check(&file, front.dir.path()).unwrap();
            helper = Apart::helper(&front);
        } else {
            puller.signal(Signal::KILL);
            puller.ended();
            puller = helper.puller(&front);
        }
    }
    let three = front.add("three").await;
    front.stands(three, "live").await;
    front.browser.until("three.proxy.test", 200).await;
    puller.stop();
    helper.helper.stop();
    front.nginx.stop();
}

/// An upgrade of a puller that has no key yet: what is served goes on, and everybody reads what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_puller_of_before_goes_on_and_says_what_to_do() {
    let front = front().await;
    let one = front.add("one").await;
    let done = front.once(&front.token);
    assert!(done.status.success(), "{}", text(&done.stderr));
    front.stands(one, "live").await;
    let words = front.words(&["--interval", "0.2"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut vars = front.puller_vars(&front.token);
    vars.retain(|(name, _)| *name != "CAC_PROXY_KEY");
    let sync = Running::start("cac", &words, &borrowed(&vars));
    let told = until("it is reported", async || {
        let reason = reason_of(&front).await;
        reason.as_str().map(ToOwned::to_owned)
    })
    .await;
    assert!(
        told.contains("Run `cac proxy key show` on the portal's machine"),
        "{told}"
    );
    front.browser.until("one.proxy.test", 200).await;
    sync.stop();
    front.nginx.stop();
}
