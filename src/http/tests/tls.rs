//! TLS: certificates of the gateway and of its clients.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Answer, Edge, JSON, METER, Options, PATH, PATIENCE, post};
use crate::auth::Keyring;
use crate::http::server::tls::{Refresh, Tls, TlsFiles};

/// An authority that signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

/// A certificate with its key.
struct Signed {
    pem: String,
    key_pem: String,
    der: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        Authority {
            pem: cert.pem(),
            der: cert.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    fn sign(&self, purpose: ExtendedKeyUsagePurpose) -> Signed {
        let mut params = CertificateParams::new(vec!["gateway.test".to_owned()]).unwrap();
        params.extended_key_usages.push(purpose);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Signed {
            pem: cert.pem(),
            key_pem: key.serialize_pem(),
            der: cert.der().clone(),
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }

    fn server(&self) -> Signed {
        self.sign(ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn client(&self) -> Signed {
        self.sign(ExtendedKeyUsagePurpose::ClientAuth)
    }
}

/// Whether an edge requires keys.
#[derive(PartialEq, Eq)]
enum Auth {
    Public,
    Keys,
}

/// An edge with TLS, and its files.
struct TlsEdge {
    edge: Edge,
    tls: Arc<Tls>,
    dir: tempfile::TempDir,
}

fn write(dir: &Path, signed: &Signed) {
    std::fs::write(dir.join("cert.pem"), &signed.pem).unwrap();
    std::fs::write(dir.join("key.pem"), &signed.key_pem).unwrap();
}

impl TlsEdge {
    fn start(server: &Signed, client_ca: Option<&Authority>, auth: Auth) -> TlsEdge {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), server);
        let client_ca = client_ca.map(|authority| {
            let path = dir.path().join("ca.pem");
            std::fs::write(&path, &authority.pem).unwrap();
            path
        });
        let files = TlsFiles {
            cert: dir.path().join("cert.pem"),
            key: dir.path().join("key.pem"),
            client_ca,
        };
        let tls = Arc::new(Tls::open(files).unwrap());
        let mut options = Options {
            tls: Some(Arc::clone(&tls)),
            keys: (auth == Auth::Keys).then(|| Arc::new(Keyring::open(dir.path()).unwrap())),
            ..Options::default()
        };
        options.settings.header_timeout = Duration::from_secs(2);
        let edge = Edge::start_with(options);
        TlsEdge { edge, tls, dir }
    }

    async fn connect(
        &self,
        trusted: &Authority,
        as_client: Option<&Signed>,
        alpn: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.der.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match as_client {
            Some(signed) => builder
                .with_client_auth_cert(vec![signed.der.clone()], signed.key.clone_key())
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(self.edge.addr).await?;
        let name = ServerName::try_from("gateway.test").unwrap();
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
        timeout(PATIENCE, connecting).await.unwrap()
    }

    /// Sends an HTTP/1.1 request and returns the status.
    async fn send(
        &self,
        trusted: &Authority,
        as_client: Option<&Signed>,
        request: &str,
    ) -> std::io::Result<u16> {
        let mut stream = self
            .connect(trusted, as_client, &["http/1.1"], rustls::DEFAULT_VERSIONS)
            .await?;
        status(&mut stream, request).await
    }
}

async fn status(stream: &mut TlsStream<TcpStream>, request: &str) -> std::io::Result<u16> {
    stream.write_all(request.as_bytes()).await?;
    let mut read = Vec::new();
    loop {
        if let Some((answer, length)) = Answer::parse(&read) {
            assert_eq!(length, read.len(), "one answer to one request");
            return Ok(answer.status);
        }
        let more = timeout(PATIENCE, stream.read_buf(&mut read))
            .await
            .unwrap()?;
        if more == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[tokio::test]
async fn both_versions_of_tls_and_of_http_work() {
    let authority = Authority::new();
    let encrypted = TlsEdge::start(&authority.server(), None, Auth::Public);
    for (versions, known) in [
        (&[&rustls::version::TLS12], ProtocolVersion::TLSv1_2),
        (&[&rustls::version::TLS13], ProtocolVersion::TLSv1_3),
    ] {
        let stream = encrypted.connect(&authority, None, &[], versions).await;
        let mut stream = stream.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(known));
        let answered = status(&mut stream, &post(PATH, JSON, METER)).await;
        assert_eq!(answered.unwrap(), 202);
        let both = ["h2", "http/1.1"];
        let stream = encrypted.connect(&authority, None, &both, versions).await;
        let stream = stream.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::get("https://gateway.test/health/live");
        let (answer, _) = sender
            .send_request(request.body(()).unwrap(), true)
            .unwrap();
        let answer: hyper::Response<h2::RecvStream> =
            timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(encrypted.edge.accepted(), 2);
}

#[tokio::test]
async fn a_client_without_tls_or_silent_is_closed() {
    let authority = Authority::new();
    let encrypted = TlsEdge::start(&authority.server(), None, Auth::Public);
    let mut plain = encrypted.edge.connect().await;
    plain.write(post(PATH, JSON, METER).as_bytes()).await;
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, plain.stream.read_to_end(&mut answer)).await;
    drop(read.unwrap());
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    assert!(encrypted.edge.connect().await.is_closed().await);
    assert_eq!(encrypted.edge.accepted(), 0);
}

#[tokio::test]
async fn a_certificate_without_a_key_may_only_send_readings() {
    let authority = Authority::new();
    let encrypted = TlsEdge::start(&authority.server(), Some(&authority), Auth::Keys);
    let client = authority.client();
    let ingest = post(PATH, JSON, METER);
    let read = "GET /v1/live/meters HTTP/1.1\r\nHost: x\r\n\r\n";
    let sent = encrypted.send(&authority, Some(&client), &ingest).await;
    assert_eq!(sent.unwrap(), 202);
    let asked = encrypted.send(&authority, Some(&client), read).await;
    assert_eq!(asked.unwrap(), 403);
    // Without a certificate, a key is required.
    let sent = encrypted.send(&authority, None, &ingest).await;
    assert_eq!(sent.unwrap(), 401);
    let key = create_key(&encrypted);
    let head = format!("{JSON}Authorization: Bearer {key}\r\n");
    let sent = encrypted
        .send(&authority, None, &post(PATH, &head, METER))
        .await;
    assert_eq!(sent.unwrap(), 202);
    // A key in the request decides, whatever rights the certificate has.
    let wrong = format!("{JSON}Authorization: Bearer x\r\n");
    let wrong = post(PATH, &wrong, METER);
    let sent = encrypted.send(&authority, Some(&client), &wrong).await;
    assert_eq!(sent.unwrap(), 401);
    // Certificates of another authority, or made for a server, are refused.
    let stranger = Authority::new().client();
    for wrong in [stranger, authority.server()] {
        assert!(
            encrypted
                .send(&authority, Some(&wrong), &ingest)
                .await
                .is_err()
        );
    }
}

#[tokio::test]
async fn a_certificate_of_a_key_has_the_rights_of_the_key() {
    let authority = Authority::new();
    let encrypted = TlsEdge::start(&authority.server(), Some(&authority), Auth::Keys);
    let client = authority.client();
    let file = encrypted.dir.path().join("client.pem");
    std::fs::write(&file, &client.pem).unwrap();
    create_with(&encrypted, |args| {
        args.rights = "read".to_owned();
        args.prefix = Some("M".to_owned());
        args.certificate = Some(file.clone());
    });
    let ingest = post(PATH, JSON, METER);
    let read = |meter: &str| format!("GET /v1/live/meters/{meter} HTTP/1.1\r\nHost: x\r\n\r\n");
    let versions = [&rustls::version::TLS13];
    let connected = encrypted
        .connect(&authority, Some(&client), &[], &versions)
        .await;
    let mut open = connected.unwrap();
    // The certificate is accepted, but the database is unreachable.
    assert_eq!(status(&mut open, &read("M1")).await.unwrap(), 503);
    assert_eq!(status(&mut open, &read("X1")).await.unwrap(), 403);
    assert_eq!(status(&mut open, &ingest).await.unwrap(), 403);
    // No key names this other certificate of the authority, so it may only send.
    let other = authority.client();
    assert_eq!(
        encrypted
            .send(&authority, Some(&other), &ingest)
            .await
            .unwrap(),
        202
    );

    let command = crate::config::KeysCommand::Revoke {
        data_dir: crate::config::DataDirArgs {
            data_dir: encrypted.dir.path().to_owned(),
        },
        key: "device".to_owned(),
    };
    crate::cli::keys::run(&command).unwrap();
    encrypted
        .edge
        .context
        .keys
        .as_ref()
        .unwrap()
        .refresh()
        .unwrap();
    // This holds on the open connection, and even for sending readings.
    assert_eq!(status(&mut open, &read("M1")).await.unwrap(), 401);
    assert_eq!(
        encrypted
            .send(&authority, Some(&client), &ingest)
            .await
            .unwrap(),
        401
    );
    // Another key that names the certificate makes it valid again.
    create_with(&encrypted, |args| args.certificate = Some(file.clone()));
    assert_eq!(
        encrypted
            .send(&authority, Some(&client), &ingest)
            .await
            .unwrap(),
        202
    );
}

fn create_key(encrypted: &TlsEdge) -> String {
    create_with(encrypted, |_| ())
}

fn create_with(encrypted: &TlsEdge, change: impl Fn(&mut crate::config::CreateKeyArgs)) -> String {
    let mut args = crate::config::CreateKeyArgs {
        data_dir: crate::config::DataDirArgs {
            data_dir: encrypted.dir.path().to_owned(),
        },
        name: "device".to_owned(),
        rights: "ingest".to_owned(),
        prefix: None,
        rate: None,
        certificate: None,
        expires: None,
    };
    change(&mut args);
    let command = crate::config::KeysCommand::Create(args);
    let made = crate::cli::keys::run(&command).unwrap();
    let keys = encrypted.edge.context.keys.as_ref().unwrap();
    keys.refresh().unwrap();
    made.answer
}

#[tokio::test]
async fn a_new_certificate_is_used_and_a_broken_one_is_not() {
    let (old, new) = (Authority::new(), Authority::new());
    let encrypted = TlsEdge::start(&old.server(), None, Auth::Public);
    let mut open = encrypted
        .connect(&old, None, &[], rustls::DEFAULT_VERSIONS)
        .await
        .unwrap();
    let ask = "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n";
    assert!(
        !encrypted.tls.refresh(Refresh::IfChanged).unwrap(),
        "nothing has changed"
    );

    // Until the key is replaced too, the old files stay in use.
    let next = new.server();
    std::fs::write(encrypted.dir.path().join("cert.pem"), &next.pem).unwrap();
    let error = encrypted
        .tls
        .refresh(Refresh::IfChanged)
        .unwrap_err()
        .to_string();
    assert!(!error.contains("PRIVATE"), "{error}");
    assert_eq!(encrypted.send(&old, None, ask).await.unwrap(), 200);
    write(encrypted.dir.path(), &next);
    assert!(encrypted.tls.refresh(Refresh::IfChanged).unwrap());
    assert_eq!(encrypted.send(&new, None, ask).await.unwrap(), 200);
    assert!(encrypted.send(&old, None, ask).await.is_err());
    // The open connection goes on.
    assert_eq!(status(&mut open, ask).await.unwrap(), 200);

    for file in ["cert.pem", "key.pem"] {
        let path = encrypted.dir.path().join(file);
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, "nonsense").unwrap();
        assert!(encrypted.tls.refresh(Refresh::IfChanged).is_err(), "{file}");
        std::fs::remove_file(&path).unwrap();
        assert!(encrypted.tls.refresh(Refresh::Always).is_err(), "{file}");
        std::fs::write(&path, good).unwrap();
        assert_eq!(encrypted.send(&new, None, ask).await.unwrap(), 200);
    }
}
