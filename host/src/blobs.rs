//! Hands out what is sealed or public anyway: the manifest, sealed files, vendor certificates; and metrics.
//!
//! `GET /v1/manifest`, `GET /v1/sealed/{32 hex digits}`, `GET /v1/certificates/{name}`, `GET /health`. Files are streamed
//! in small pieces. A name is looked up, never joined from what the caller wrote: only listed characters pass.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::link::Accept;
use crate::metrics::Metrics;

const PIECE_LEN: usize = 256 << 10;
const MAX_CONNECTIONS: usize = 256;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What one listener answers.
#[derive(Clone)]
pub(crate) enum Content {
    /// Sealed files and certificates.
    Files { sealed: PathBuf, certificates: Option<PathBuf> },
    /// The metrics page.
    Metrics,
}

impl Content {
    pub(crate) fn files(config: &Config) -> Self {
        Self::Files { sealed: config.sealed_dir.clone(), certificates: config.certificates_dir.clone() }
    }
}

/// Answers on `listener` until `stop` turns true.
pub(crate) async fn run(
    listener: Box<dyn Accept>,
    content: Content,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(stream) => stream,
                // The other end of a machine that is gone.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = stop.cancelled() => return,
        };
        let (content, metrics, stop) = (content.clone(), metrics.clone(), stop.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let (content, metrics) = (content.clone(), metrics.clone());
                async move { Ok::<_, Infallible>(answer(&request, &content, &metrics).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                // A caller that goes away in the middle of a file is its own affair.
                _ = connection => (),
                () = stop.cancelled() => (),
            }
            drop(slot);
        });
    }
}

async fn answer(request: &Request<Incoming>, content: &Content, metrics: &Metrics) -> Response<Body> {
    if request.method() != Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n");
    }
    let path = request.uri().path();
    match content {
        _ if path == "/health" => plain(StatusCode::OK, "ok\n"),
        Content::Metrics if path == "/metrics" => plain(StatusCode::OK, metrics.text()),
        Content::Metrics => plain(StatusCode::NOT_FOUND, "try /metrics\n"),
        Content::Files { sealed, certificates } => match lookup(path, sealed, certificates.as_ref()) {
            Some(file) => {
                metrics.files.inc();
                stream_file(file).await
            }
            None => plain(StatusCode::NOT_FOUND, "no such file\n"),
        },
    }
}

/// Maps a request path to a file, or to nothing.
fn lookup(path: &str, sealed: &std::path::Path, certificates: Option<&PathBuf>) -> Option<PathBuf> {
    if path == "/v1/manifest" {
        return Some(sealed.join("manifest.cose"));
    }
    if let Some(id) = path.strip_prefix("/v1/sealed/") {
        let opaque = id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        return opaque.then(|| sealed.join(format!("{id}.sealed")));
    }
    let name = path.strip_prefix("/v1/certificates/")?;
    let plain = !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    certificates.filter(|_| plain).map(|folder| folder.join(name))
}

async fn stream_file(path: PathBuf) -> Response<Body> {
    let opened = async {
        let file = tokio::fs::File::open(&path).await?;
        let len = file.metadata().await?.len();
        Ok::<_, io::Error>((file, len))
    };
    let (file, len) = match opened.await {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return plain(StatusCode::NOT_FOUND, "no such file\n");
        }
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "cannot read a file that was asked for");
            return plain(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read\n");
        }
    };
    // The next piece is read when the last was taken, so a slow caller costs one piece of memory.
    let pieces = futures_util::stream::try_unfold(file, |mut file| async move {
        let mut piece = vec![0; PIECE_LEN];
        let len = file.read(&mut piece).await?;
        piece.truncate(len);
        Ok::<_, io::Error>((len > 0).then(|| (Frame::data(Bytes::from(piece)), file)))
    });
    let body = StreamBody::new(pieces).boxed_unsync();
    let response = Response::builder()
        .header("content-type", "application/octet-stream")
        .header("content-length", len)
        .body(body);
    response.unwrap_or_else(|_| plain(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be built\n"))
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(text.into()).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn only_listed_names_are_looked_up() {
        let certificates = PathBuf::from("/certificates");
        let find = |path: &str| lookup(path, Path::new("/sealed"), Some(&certificates));
        assert_eq!(find("/v1/manifest"), Some(PathBuf::from("/sealed/manifest.cose")));
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(find(&format!("/v1/sealed/{id}")), Some(PathBuf::from(format!("/sealed/{id}.sealed"))));
        assert_eq!(find("/v1/certificates/vcek.der"), Some(PathBuf::from("/certificates/vcek.der")));
        // As a store of fetched endorsements names them.
        let entry = "kds-Milan-vcek-crl.entry";
        assert_eq!(find(&format!("/v1/certificates/{entry}")), Some(Path::new("/certificates").join(entry)));
        for refused in [
            "/v1/sealed/..%2f..%2fetc%2fpasswd",
            "/v1/sealed/../../etc/passwd",
            "/v1/sealed/0123",
            "/v1/sealed/0123456789ABCDEF0123456789ABCDEF",
            "/v1/certificates/",
            "/v1/certificates/../host.toml",
            "/v1/certificates/.hidden",
            "/v1/certificates/a/b",
            "/",
            "/metrics",
        ] {
            assert_eq!(find(refused), None, "{refused}");
        }
    }

    #[tokio::test]
    async fn a_file_is_handed_out_whole_and_a_missing_one_is_404() {
        use tokio::io::AsyncWriteExt as _;
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..600_000u32).map(|n| (n % 251) as u8).collect();
        std::fs::write(folder.path().join("manifest.cose"), &bytes).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stopped = CancellationToken::new();
        let content = Content::Files { sealed: folder.path().into(), certificates: None };
        tokio::spawn(run(Box::new(listener), content, Arc::new(Metrics::new()), stopped));
        let get = |path: &'static str| async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            answer
        };
        assert!(get("/v1/manifest").await.ends_with(&bytes));
        assert!(get("/v1/sealed/00000000000000000000000000000000").await.starts_with(b"HTTP/1.1 404"));
        assert!(get("/health").await.ends_with(b"ok\n"));
    }
}
