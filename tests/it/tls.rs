//! Whoever a server tells over TLS must show a certificate that this machine trusts: nothing is sent before that.

use std::net::SocketAddr;
use std::sync::Arc;

use coupon_ledger::identity::Caller;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::harness::{Home, Server, cli_token, program};
use crate::outside::{Api, until};
use crate::webhooks::Receiver;

/// A certificate for this machine's names that nobody trusts who is not told to, good for a hundred years.
pub const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/tls/server.pem");

/// Its key, which is everybody's.
pub const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/tls/server.key");

/// Another, of the same names.
pub const STRANGER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/tls/stranger.pem");

/// Ends TLS before somebody who speaks none.
async fn before(receiver: SocketAddr) -> SocketAddr {
    let certificate = CertificateDer::from_pem_file(CERTIFICATE).unwrap();
    let key = PrivateKeyDer::from_pem_file(KEY).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut inside = acceptor.accept(stream).await?;
                let mut receiver = TcpStream::connect(receiver).await?;
                tokio::io::copy_bidirectional(&mut inside, &mut receiver).await
            });
        }
    });
    address
}

on_both_engines! {
    async fn webhooks_go_over_https_to_whom_this_machine_trusts_and_to_nobody_else(engine: Engine) {
        let home = Home::new(engine).await;
        let (receiver, plain) = Receiver::new().await;
        let port = before(plain).await.port();
        let arguments = ["--webhook-allow-network", "127.0.0.0/8,::1"];
        let server = Server::start(&home, &arguments).await;
        let operator = cli_token(&home, &["--operator"]).await;
        let url = format!("{}/v1/webhooks?url=https://localhost:{port}/coupons&after=0", server.url);
        let added = reqwest::Client::new().post(url).bearer_auth(&operator).send().await.unwrap();
        assert_eq!(added.status(), 200);
        let failing = async |server: &Server| -> Value {
            let (status, text) = Api::new(&home, server).get(Caller::Auditor, "/v1/webhooks").await;
            assert_eq!(status, 200, "{text}");
            serde_json::from_str::<Value>(&text).unwrap()["webhooks"][0]["failing"].clone()
        };
        until("its certificate is refused", async || failing(&server).await.is_object()).await;
        let said = failing(&server).await;
        assert!(said["error"].as_str().unwrap().contains("invalid peer certificate: UnknownIssuer"), "{said}");
        assert_eq!(receiver.positions(), Vec::<i64>::new());
        server.kill().await;

        let mut command = program(&home);
        command.env("SSL_CERT_FILE", CERTIFICATE);
        let server = Server::launch(command, &arguments).await;
        // Some seconds after it failed it is tried again.
        until("it has come", async || receiver.positions().first() == Some(&1)).await;
        until("it fails no more", async || failing(&server).await == json!(null)).await;
        server.kill().await;
    }
}
