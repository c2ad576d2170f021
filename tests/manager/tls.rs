//! A server that is spoken to over TLS. The authority that vouches for it is the test's own, made by `openssl`.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use multiproc::{ErrorKind, Manager};

use crate::redis::RedisServer;

/// Set for the processes that connect, which trust whom their environment says.
const ROLE: &str = "MANAGER_TLS_URL";

fn openssl(dir: &Path, args: &str) {
    let done = Command::new("openssl")
        .args(args.split(' '))
        .current_dir(dir)
        .output();
    let done = done.expect("openssl in PATH makes the certificates");
    assert!(done.status.success(), "openssl {args}: {done:?}");
}

#[test]
fn a_server_is_spoken_to_over_tls_if_its_authority_is_trusted() {
    if let Ok(url) = std::env::var(ROLE) {
        let manager = match Manager::connect(&url) {
            Ok(manager) => manager,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Disconnected);
                assert_eq!(error.maybe_applied(), Some(false), "{error}");
                panic!("not trusted");
            }
        };
        let dict = manager.dict::<u32, Vec<u8>>("d").unwrap();
        for n in 0..100 {
            dict.insert(n, vec![n as u8; 100_000]).unwrap();
        }
        assert_eq!(dict.snapshot().unwrap().len(), 100);
        return;
    }
    let dir = std::env::temp_dir().join(format!("mp-tls-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let new = "-newkey rsa:2048 -nodes -days 2";
    openssl(
        &dir,
        &format!("req -x509 {new} -keyout ca.key -out ca.crt -subj /CN=authority"),
    );
    openssl(
        &dir,
        &format!("req {new} -keyout key -out csr -subj /CN=localhost"),
    );
    std::fs::write(
        dir.join("names"),
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
    )
    .unwrap();
    openssl(
        &dir,
        "x509 -req -in csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out crt",
    );

    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (port, crt, key, ca) = (port.to_string(), file("crt"), file("key"), file("ca.crt"));
    let _server = RedisServer::start_with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &crt,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ]);
    for (host, trusted, goes) in [
        ("localhost", true, true),
        ("127.0.0.1", true, true),
        ("localhost", false, false),
    ] {
        let mut role = Command::new(std::env::current_exe().unwrap());
        role.args([
            "--exact",
            "tls::a_server_is_spoken_to_over_tls_if_its_authority_is_trusted",
        ])
        .env(ROLE, format!("rediss://{host}:{port}/"));
        if trusted {
            role.env("SSL_CERT_FILE", &ca);
        }
        let output = role.output().unwrap();
        assert_eq!(
            output.status.success(),
            goes,
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
