//! Which nginx is installed and what it can do, from its own `-V`. Nothing is installed or started here.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::value::ConfigPath;

/// What the file may contain, by the release of the nginx that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// Debian's 1.18 to 1.22, and everything before 1.25.1: HTTP/2 is a word of `listen`.
    Debian1_22,
    /// 1.25.1 and later: HTTP/2 is a directive, and there may be HTTP/3.
    V1_25,
}

impl Flavour {
    /// Of a release.
    pub fn of(version: (u32, u32, u32)) -> Self {
        if version >= (1, 25, 1) {
            Self::V1_25
        } else {
            Self::Debian1_22
        }
    }

    /// Of a release as people write it, such as `1.22` or `1.25.3`.
    pub fn of_version(text: &str) -> Option<Self> {
        numbers(text)
            .map(|(major, minor, patch)| Self::of((major, minor, patch.unwrap_or(u32::MAX))))
    }
}

fn numbers(version: &str) -> Option<(u32, u32, Option<u32>)> {
    let mut parts = version.splitn(3, '.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next().flatten()))
}

/// How this nginx proxies plain TCP and UDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamModule {
    /// Not at all: such services are left out.
    Missing,
    /// Part of the program.
    Builtin,
    /// A file that must be loaded first (Debian's `libnginx-mod-stream`).
    Dynamic(ConfigPath),
}

impl StreamModule {
    /// Where Debian has it.
    pub fn debian() -> Self {
        let file = "/usr/lib/nginx/modules/ngx_stream_module.so";
        Self::Dynamic(file.parse().expect("a plain path"))
    }
}

/// An installed nginx.
#[derive(Debug, Clone)]
pub struct Found {
    /// The program.
    pub binary: PathBuf,
    /// Major, minor, patch.
    pub version: (u32, u32, u32),
    /// Built with HTTP/3.
    pub http3: bool,
    /// Where TCP and UDP proxying comes from.
    pub stream_module: StreamModule,
    /// The file that it reads where it is told none.
    pub(super) file: Option<PathBuf>,
    /// Where relative ones are.
    pub(super) prefix: Option<PathBuf>,
}

impl Found {
    /// The flavour of configuration this nginx reads without a warning.
    pub fn flavour(&self) -> Flavour {
        Flavour::of(self.version)
    }

    /// Asks the program at `binary`; `None` when it is no nginx that runs here.
    pub fn ask(binary: &Path) -> Option<Self> {
        let output = Command::new(binary)
            .arg("-V")
            .stdin(Stdio::null())
            .output()
            .ok()?;
        let said = String::from_utf8_lossy(&output.stderr);
        Self::read(binary, &said, &|path| path.is_file())
    }

    fn read(binary: &Path, said: &str, is_file: &dyn Fn(&Path) -> bool) -> Option<Self> {
        let version = said
            .lines()
            .find_map(|line| line.strip_prefix("nginx version: "))?;
        let (major, minor, patch) = numbers(version.split('/').nth(1)?.split(' ').next()?)?;
        let version = (major, minor, patch.unwrap_or(0));
        let built = |word: &str| {
            said.split_ascii_whitespace()
                .any(|argument| argument == word)
        };
        let stream_module = if built("--with-stream") {
            StreamModule::Builtin
        } else {
            stream_file(said)
                .filter(|path| is_file(path))
                .and_then(|path| ConfigPath::try_from(path.as_path()).ok())
                .map_or(StreamModule::Missing, StreamModule::Dynamic)
        };
        Some(Self {
            binary: binary.to_owned(),
            version,
            http3: built("--with-http_v3_module"),
            stream_module,
            file: option(said, "--conf-path=").map(PathBuf::from),
            prefix: option(said, "--prefix=").map(PathBuf::from),
        })
    }
}

/// A word that nginx was built with.
fn option<'a>(said: &'a str, name: &str) -> Option<&'a str> {
    said.split_ascii_whitespace()
        .find_map(|argument| argument.strip_prefix(name))
}

fn stream_file(said: &str) -> Option<PathBuf> {
    let folder = match option(said, "--modules-path=") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(option(said, "--prefix=")?).join("modules"),
    };
    Some(folder.join("ngx_stream_module.so"))
}

/// The first nginx of `PATH`, then of the places where packages put it, that an ordinary user's `PATH` leaves out.
pub fn find_nginx() -> Option<Found> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = [
        "/usr/sbin",
        "/usr/local/sbin",
        "/usr/local/nginx/sbin",
        "/opt/nginx/sbin",
    ];
    std::env::split_paths(&path)
        .chain(usual.iter().map(PathBuf::from))
        .map(|folder| folder.join("nginx"))
        .filter(|binary| binary.is_file())
        .find_map(|binary| Found::ask(&binary))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "nginx version: nginx/1.22.1\nTLS SNI support enabled\nconfigure arguments: \
        --prefix=/usr/share/nginx --modules-path=/usr/lib/nginx/modules --with-stream_ssl_module --with-stream=dynamic";
    const UPSTREAM: &str = "nginx version: nginx/1.27.3 (Ubuntu)\nconfigure arguments: --prefix=/etc/nginx \
        --with-http_v3_module --with-stream --with-stream_ssl_module";

    #[test]
    fn debian_loads_its_stream_module() {
        let found = Found::read(Path::new("/n"), DEBIAN, &|_| true).unwrap();
        assert_eq!(found.version, (1, 22, 1));
        assert_eq!(found.flavour(), Flavour::Debian1_22);
        let path = "/usr/lib/nginx/modules/ngx_stream_module.so"
            .parse()
            .unwrap();
        assert_eq!(found.stream_module, StreamModule::Dynamic(path));
        let bare = Found::read(Path::new("/n"), DEBIAN, &|_| false).unwrap();
        assert_eq!(bare.stream_module, StreamModule::Missing);
    }

    #[test]
    fn a_new_one_has_stream_and_http3_built_in() {
        let found = Found::read(Path::new("/n"), UPSTREAM, &|_| false).unwrap();
        assert_eq!(found.flavour(), Flavour::V1_25);
        assert!(found.http3);
        assert_eq!(found.stream_module, StreamModule::Builtin);
    }

    #[test]
    fn another_program_is_no_nginx() {
        assert!(Found::read(Path::new("/n"), "true (GNU coreutils) 9.1", &|_| true).is_none());
    }
}
