//! A portal as its clients see it, wherever it runs.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use reqwest::{Certificate, Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;

use crate::lab::until;

pub(crate) struct Portal {
    pub(crate) url: String,
    client: Client,
}

impl Portal {
    pub(crate) fn new(url: impl Into<String>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            url: url.into().trim_end_matches('/').to_owned(),
            client: Client::builder().no_proxy().build().unwrap(),
        }
    }

    /// The session as a `Cookie` header, or the status of the refusal.
    pub(crate) async fn login(&self, name: &str, password: &str) -> Result<String, u16> {
        let body = json!({"username": name, "password": password});
        let request = self.request(Method::POST, "/login").json(&body);
        let answer = request.send().await.unwrap();
        if answer.status() != 200 {
            return Err(answer.status().as_u16());
        }
        let set = answer.headers()["set-cookie"].to_str().unwrap();
        Ok(set.split(';').next().unwrap().to_owned())
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub(crate) async fn get(&self, path: &str, session: &str) -> Response {
        let request = self.request(Method::GET, path);
        request.header("cookie", session).send().await.unwrap()
    }

    pub(crate) async fn delete(&self, path: &str, session: &str) -> Response {
        let request = self.request(Method::DELETE, path);
        request.header("cookie", session).send().await.unwrap()
    }

    /// Asks for a container that must be accepted: row id and job id.
    pub(crate) async fn create(&self, session: &str, hostname: &str) -> (i64, i64) {
        let body = json!({"init": true, "hostname": hostname, "osRelease": "debian", "httpPort": 8080, "aiContainer": "N"});
        let request = self
            .request(Method::POST, "/containers")
            .header("cookie", session)
            .json(&body);
        let answer = json(request.send().await.unwrap(), 202).await;
        (
            answer["id"].as_i64().unwrap(),
            answer["jobId"].as_i64().unwrap(),
        )
    }

    /// The whole event stream of a job, to its end.
    pub(crate) async fn follow(&self, session: &str, job: i64) -> String {
        let stream = self.get(&format!("/api/stream/{job}"), session).await;
        assert_eq!(stream.status(), 200);
        stream.text().await.unwrap()
    }

    pub(crate) async fn container(&self, session: &str, id: i64) -> Value {
        json(self.get(&format!("/containers/{id}"), session).await, 200).await
    }
}

/// The JSON of an answer that must have this status.
pub(crate) async fn json(answer: Response, status: u16) -> Value {
    let got = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    assert_eq!(got, status, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// The external port of a container's ssh service.
pub(crate) fn ssh_port(container: &Value) -> u16 {
    let services = container["services"].as_array().unwrap();
    let ssh = services
        .iter()
        .find(|service| service["internalPort"] == 2022);
    u16::try_from(ssh.unwrap()["externalPort"].as_u64().unwrap()).unwrap()
}

/// A browser that knows one proxy and trusts its certificate.
pub(crate) struct Browser {
    client: Client,
    port: u16,
}

impl Browser {
    /// Names below `domain` lead to `proxy`.
    pub(crate) fn new(names: &[String], proxy: SocketAddr, certificate: &Path) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let own = Certificate::from_pem(&std::fs::read(certificate).unwrap()).unwrap();
        let mut builder = Client::builder().no_proxy().tls_certs_only([own]);
        for name in names {
            builder = builder.resolve(name, proxy);
        }
        // A connection that is kept would stay with a worker of an older configuration.
        let client = builder.pool_max_idle_per_host(0).build().unwrap();
        Self {
            client,
            port: proxy.port(),
        }
    }

    /// Status and page of a site over TLS.
    pub(crate) async fn open(&self, name: &str) -> (u16, String) {
        let url = format!("https://{name}:{}/", self.port);
        let answer = self.client.get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// The page of a site, as soon as it answers so.
    pub(crate) async fn until(&self, name: &str, status: u16) -> String {
        until(&format!("{name} answers {status}"), async || {
            let (got, page) = self.open(name).await;
            (got == status).then_some(page)
        })
        .await
    }
}

/// The first line that a server says.
pub(crate) async fn greeting(ip: IpAddr, port: u16) -> Option<String> {
    let stream = TcpStream::connect((ip, port)).await.ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.ok()?;
    (!line.is_empty()).then(|| line.trim_end().to_owned())
}
