//! Fetches manifest and sealed files from the host, which may lie about all of them.
//!
//! Plain HTTP: nothing secret goes out, and what comes in is verified. Lengths are bounded by what was signed before.

use std::io::{self, Read};
use std::time::Duration;

use adyton_channel::http::read_body;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::EnclaveError;
use crate::transport::Address;

const TIMEOUT: Duration = Duration::from_secs(20);
const MAX_MANIFEST_LEN: usize = 1 << 20;

async fn get(files: &Address, path: String, what: &'static str) -> Result<Response<Incoming>, EnclaveError> {
    let failed = |reason: String| EnclaveError::Fetch { what, reason };
    let exchange = async {
        let stream = files.connect().await.map_err(|error| failed(error.to_string()))?;
        let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(error.to_string()))?;
        tokio::spawn(driver);
        let request = Request::get(path)
            .header("host", "adyton.invalid")
            .body(Empty::<Bytes>::new())
            .map_err(|error| failed(error.to_string()))?;
        sender.send_request(request).await.map_err(|error| failed(error.to_string()))
    };
    let response = timeout(TIMEOUT, exchange).await.map_err(|_| failed("no answer in time".into()))??;
    if response.status() != StatusCode::OK {
        return Err(failed(format!("HTTP status {}", response.status())));
    }
    Ok(response)
}

/// The signed manifest, unverified.
pub(crate) async fn manifest(files: &Address) -> Result<Vec<u8>, EnclaveError> {
    let response = get(files, "/v1/manifest".into(), "the manifest").await?;
    let (body, _) = read_body(response.into_body(), MAX_MANIFEST_LEN).await?;
    Ok(body.to_vec())
}

/// A sealed file as a blocking reader, for the threads that decrypt it.
pub(crate) async fn sealed_file(files: &Address, file_id: &[u8; 16]) -> Result<BlockingBody, EnclaveError> {
    let path = format!("/v1/sealed/{}", hex::encode(file_id));
    let mut body = get(files, path, "a sealed file").await?.into_body();
    // A few pieces of at most some hundred KiB: the network reads ahead of decryption by that much and no more.
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        loop {
            let piece = match timeout(TIMEOUT, body.frame()).await {
                Ok(None) => return,
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => Ok(data),
                    Err(_) => continue,
                },
                Ok(Some(Err(error))) => Err(io::Error::other(error)),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            let failed = piece.is_err();
            if sender.send(piece).await.is_err() || failed {
                return;
            }
        }
    });
    Ok(BlockingBody { receiver, piece: Bytes::new() })
}

/// The pieces of a body, read from a thread that may block.
pub(crate) struct BlockingBody {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for BlockingBody {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let len = out.len().min(self.piece.len());
        out[..len].copy_from_slice(&self.piece.split_to(len));
        Ok(len)
    }
}
