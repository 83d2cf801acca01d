//! What a configuration file of cac may say. nginx' first process is root's: by `load_module`, `include`, a log's path or `user root` its
//! file is a way to everything on the machine, and a portal that was broken into writes what it likes. So whoever puts a file in place
//! compares it with what cac writes, and with what this machine says about paths. Not a check of whether nginx likes it: `nginx -t` is.

use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};

use super::found::StreamModule;
use super::lexer::{self, Directive, Word};

/// What this machine allows, whatever the portal asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalLimits {
    /// The file that `load_module` may name.
    pub stream_module: Option<PathBuf>,
    /// What `include` may name, word for word.
    pub include: Option<String>,
    /// Files of nginx' number: the one that is, and while it changes the other.
    pub pid: Vec<PathBuf>,
    /// The folder of logs.
    pub logs: PathBuf,
    /// The folder of temporary files.
    pub temp: PathBuf,
    /// Accounts that workers may run as.
    pub users: Vec<String>,
}

impl LocalLimits {
    /// Debian's places.
    pub fn debian(stream_module: &StreamModule) -> Self {
        Self {
            stream_module: match stream_module {
                StreamModule::Dynamic(path) => Some(path.as_path().to_owned()),
                StreamModule::Builtin | StreamModule::Missing => None,
            },
            include: Some("/etc/nginx/conf.d/*.conf".to_owned()),
            pid: vec!["/run/nginx.pid".into()],
            logs: "/var/log/nginx".into(),
            temp: "/var/lib/nginx".into(),
            users: ["www-data", "nginx", "nobody"].map(str::to_owned).into(),
        }
    }

    /// A sentence that says where the file says more than cac writes.
    pub fn check(&self, text: &str) -> Result<(), String> {
        let directives = lexer::read(text)?;
        self.block(Place::Main, &directives)
    }

    fn block(&self, place: Place, directives: &[Directive]) -> Result<(), String> {
        for directive in directives {
            self.directive(place, directive)?;
        }
        Ok(())
    }

    fn directive(&self, place: Place, directive: &Directive) -> Result<(), String> {
        let refuse = |why: &str| {
            let words: Vec<&str> = directive
                .words
                .iter()
                .map(|word| word.text.as_str())
                .collect();
            let words: String = words.join(" ").chars().take(200).collect();
            Err(format!("line {}: `{words}`: {why}", directive.line))
        };
        if directive.words.iter().any(is_pattern) {
            return refuse("cac writes no regular expressions.");
        }
        let Some(form) = place.form(directive.name(), directive.block.is_some()) else {
            return refuse("cac never writes this here.");
        };
        match self.fits(form, directive.arguments()) {
            Ok(()) => {}
            Err(why) => return refuse(why),
        }
        match (form, &directive.block) {
            (Form::Block(inner), Some(block)) => self.block(inner, block),
            (Form::LocationOf, Some(block)) => self.block(Place::Location, block),
            (Form::If, Some(block)) => self.block(Place::If, block),
            (Form::Map, Some(block)) => match map(directive.arguments(), block) {
                Ok(()) => Ok(()),
                Err(why) => refuse(why),
            },
            _ => Ok(()),
        }
    }

    fn fits(&self, form: Form, words: &[Word]) -> Result<(), &'static str> {
        let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        let is = |good: bool, why: &'static str| if good { Ok(()) } else { Err(why) };
        match form {
            Form::Plain | Form::Block(_) => Ok(()),
            Form::Map => is(
                texts.len() == 2 && MAPPED.contains(&texts[1]),
                "cac makes other variables.",
            ),
            Form::If => is(
                texts == IF_UNKNOWN,
                "cac asks for nothing but an unknown name.",
            ),
            Form::LocationOf => is(
                matches!(texts[..], [path] | ["^~", path] if path.starts_with(['/', '@'])),
                "a location is a path or a name.",
            ),
            Form::Off => is(texts == ["off"], "cac rewrites no redirects."),
            Form::Module => is(
                texts.len() == 1 && self.stream_module.as_deref() == Some(Path::new(texts[0])),
                "this machine allows no module but nginx' own stream module.",
            ),
            Form::User => is(
                texts.len() == 1 && self.users.iter().any(|user| user == texts[0]),
                "this machine does not allow workers of that account (CAC_PROXY_USER).",
            ),
            Form::Pid => is(
                texts.len() == 1 && self.pid.iter().any(|pid| pid == Path::new(texts[0])),
                "this machine has another file for nginx' number (CAC_PROXY_PID).",
            ),
            Form::Include => is(
                texts.len() == 1 && self.include.as_deref() == Some(texts[0]),
                "this machine includes other files (CAC_PROXY_INCLUDE).",
            ),
            Form::Log => is(
                texts.first().is_some_and(|path| self.is_log(path)),
                "this machine has its logs elsewhere (CAC_PROXY_LOGS).",
            ),
            Form::Temp => is(
                texts.len() == 1 && is_within(texts[0], &self.temp),
                "this machine has temporary files elsewhere (CAC_PROXY_TEMP).",
            ),
            Form::Certificate => is(
                texts.len() == 1
                    && texts[0].starts_with('/')
                    && !texts[0].contains(['$', ':', '\\']),
                "a certificate or its key is a file with its whole path.",
            ),
            Form::Listen => is(
                texts.split_first().is_some_and(|(at, how)| {
                    at.parse::<SocketAddr>().is_ok() && how.iter().all(|word| LISTEN.contains(word))
                }),
                "nginx listens on addresses and ports, in the ways that cac knows.",
            ),
            Form::HttpUpstream => is(
                texts.len() == 1 && is_http_upstream(texts[0]),
                "requests go to addresses and ports alone.",
            ),
            Form::StreamUpstream => is(
                texts.len() == 1 && texts[0].parse::<SocketAddr>().is_ok(),
                "connections go to addresses and ports alone.",
            ),
        }
    }

    fn is_log(&self, path: &str) -> bool {
        matches!(path, "off" | "stderr" | "/dev/null") || is_within(path, &self.logs)
    }
}

/// Words that `listen` may have behind the address.
const LISTEN: [&str; 7] = [
    "ssl",
    "http2",
    "quic",
    "reuseport",
    "default_server",
    "udp",
    "so_keepalive=on",
];

/// The variable that names where a request goes; its map has nothing but addresses.
const UPSTREAM: &str = "$cac_upstream";
/// All variables that cac makes. nginx does not tell `$A` from `$a`, so that no other spelling is one of these.
const MAPPED: [&str; 4] = ["$cac_upgrade", "$cac_connection", "$cac_host", UPSTREAM];
/// As the words of `if ($cac_upstream = "")` are cut.
const IF_UNKNOWN: [&str; 4] = ["($cac_upstream", "=", "", ")"];

/// Where a directive stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Main,
    Events,
    Http,
    Server,
    Location,
    If,
    Stream,
    StreamServer,
}

/// What a directive may have behind its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Anything: no value of it names a file, a program or a socket.
    Plain,
    Block(Place),
    Map,
    If,
    LocationOf,
    /// `off`
    Off,
    Module,
    User,
    Pid,
    Include,
    Log,
    Temp,
    Certificate,
    Listen,
    HttpUpstream,
    StreamUpstream,
}

impl Place {
    fn form(self, name: &str, has_block: bool) -> Option<Form> {
        let blocks: &[(&str, Form)] = match self {
            Self::Main => &[
                ("events", Form::Block(Self::Events)),
                ("http", Form::Block(Self::Http)),
                ("stream", Form::Block(Self::Stream)),
            ],
            Self::Http => &[("map", Form::Map), ("server", Form::Block(Self::Server))],
            Self::Server => &[("location", Form::LocationOf)],
            Self::Location => &[("if", Form::If)],
            Self::Stream => &[("server", Form::Block(Self::StreamServer))],
            Self::Events | Self::If | Self::StreamServer => &[],
        };
        if has_block {
            let found = blocks.iter().find(|(known, _)| *known == name);
            return found.map(|(_, form)| *form);
        }
        let (special, plain) = self.directives();
        let found = special.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, form)| *form)
            .or_else(|| plain.contains(&name).then_some(Form::Plain))
    }

    /// Those whose values are looked at, and those that may have any.
    fn directives(self) -> (&'static [(&'static str, Form)], &'static [&'static str]) {
        match self {
            Self::Main => (
                &[
                    ("load_module", Form::Module),
                    ("user", Form::User),
                    ("pid", Form::Pid),
                    ("error_log", Form::Log),
                ],
                &[
                    "worker_processes",
                    "worker_shutdown_timeout",
                    "worker_rlimit_nofile",
                ],
            ),
            Self::Events => (&[], &["worker_connections"]),
            Self::Http => (HTTP, HTTP_PLAIN),
            Self::Server => (SERVER, SERVER_PLAIN),
            Self::Location => (LOCATION, LOCATION_PLAIN),
            Self::If => (&[("access_log", Form::Log)], &["return"]),
            Self::Stream => (&[], &["proxy_connect_timeout", "proxy_socket_keepalive"]),
            Self::StreamServer => (
                &[
                    ("listen", Form::Listen),
                    ("proxy_pass", Form::StreamUpstream),
                    ("ssl_certificate", Form::Certificate),
                    ("ssl_certificate_key", Form::Certificate),
                ],
                &["proxy_timeout", "ssl_protocols", "ssl_ciphers"],
            ),
        }
    }
}

const HTTP: &[(&str, Form)] = &[
    ("include", Form::Include),
    ("access_log", Form::Log),
    ("error_log", Form::Log),
    ("client_body_temp_path", Form::Temp),
    ("proxy_temp_path", Form::Temp),
    ("fastcgi_temp_path", Form::Temp),
    ("uwsgi_temp_path", Form::Temp),
    ("scgi_temp_path", Form::Temp),
];
const HTTP_PLAIN: &[&str] = &[
    "log_format",
    "server_tokens",
    "keepalive_timeout",
    "client_max_body_size",
    "large_client_header_buffers",
    "map_hash_max_size",
    "map_hash_bucket_size",
    "server_names_hash_max_size",
    "server_names_hash_bucket_size",
    "add_header",
    "proxy_hide_header",
];
const SERVER: &[(&str, Form)] = &[
    ("listen", Form::Listen),
    ("access_log", Form::Log),
    ("error_log", Form::Log),
    ("ssl_certificate", Form::Certificate),
    ("ssl_certificate_key", Form::Certificate),
];
const SERVER_PLAIN: &[&str] = &[
    "underscores_in_headers",
    "ignore_invalid_headers",
    "server_name",
    "http2",
    "http3",
    "add_header",
    "proxy_hide_header",
    "client_max_body_size",
    "client_header_timeout",
    "ssl_protocols",
    "ssl_ciphers",
    "ssl_prefer_server_ciphers",
    "ssl_session_cache",
    "ssl_session_timeout",
    "ssl_session_tickets",
    "return",
];
const LOCATION: &[(&str, Form)] = &[
    ("proxy_redirect", Form::Off),
    ("proxy_pass", Form::HttpUpstream),
    ("access_log", Form::Log),
    ("error_log", Form::Log),
];
const LOCATION_PLAIN: &[&str] = &[
    "return",
    "internal",
    "add_header",
    "error_page",
    "client_max_body_size",
    "proxy_hide_header",
    "proxy_set_header",
    "proxy_ssl_server_name",
    "proxy_ssl_name",
    "proxy_http_version",
    "proxy_buffering",
    "proxy_request_buffering",
    "proxy_connect_timeout",
    "proxy_send_timeout",
    "proxy_read_timeout",
    "proxy_method",
    "proxy_pass_request_body",
    "proxy_pass_request_headers",
    "proxy_intercept_errors",
];

/// A map's lines are values and no directives, but for words such as `include`.
fn map(words: &[Word], lines: &[Directive]) -> Result<(), &'static str> {
    let upstream = words[1].text == UPSTREAM;
    for line in lines {
        let [key, value] = &line.words[..] else {
            return Err("a map's line has two words.");
        };
        // nginx takes a quoted `include` for one, too.
        if line.block.is_some() || key.text == "include" {
            return Err("a map has lines and nothing else.");
        }
        if is_pattern(key) {
            return Err("cac writes no regular expressions.");
        }
        if upstream && !value.text.is_empty() && value.text.parse::<SocketAddr>().is_err() {
            return Err("requests go to addresses and ports alone.");
        }
    }
    Ok(())
}

/// A regular expression may set any variable by the name of a group, and so lead a request where a visitor says.
fn is_pattern(word: &Word) -> bool {
    let text = word.text.trim_start_matches('!');
    text.starts_with('~') || text.contains("(?")
}

fn is_http_upstream(text: &str) -> bool {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let Some(rest) = rest else { return false };
    let (at, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let address = at == UPSTREAM || at.parse::<SocketAddr>().is_ok();
    address && !path.contains("..")
}

/// A path below a folder, without a way out of it and without a variable.
fn is_within(text: &str, folder: &Path) -> bool {
    let path = Path::new(text);
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let below = path
        .strip_prefix(folder)
        .is_ok_and(|rest| rest != Path::new(""));
    below && path.components().all(plain) && !text.contains(['$', ':', '\\'])
}

#[cfg(test)]
mod tests;
