//! Seals or opens one file and prints how long it took, for `scripts/bench seal`.
//!
//! `seal_bench seal PLAIN SEALED` and `seal_bench open PLAIN SEALED`; `open` derives the claims from `PLAIN` once
//! more, outside the timing, since a manifest would bring them. Prints `SECONDS PEAK_RSS_KIB`.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use adyton_vault::{FileClaims, Header, Kek, SealParams, Suite, merkle, open_file, seal_file};
use std::error::Error;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::Instant;

fn params(kek: &Kek) -> SealParams<'_> {
    SealParams {
        kek,
        owner_id: b"owner",
        model_name: "model",
        counter: 1,
        suite: Suite::default(),
        recipients: &[],
        threads: None,
    }
}

/// Peak resident memory of this process in KiB, from the kernel's account.
fn peak_rss_kib() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

fn plaintext_root(path: &Path) -> Result<merkle::Digest, Box<dyn Error>> {
    let mut file = File::open(path)?;
    let mut tree = merkle::Tree::default();
    let mut chunk = vec![0; adyton_vault::chunk::CHUNK_LEN];
    for index in 0.. {
        let mut len = 0;
        while len < chunk.len() {
            match file.read(&mut chunk[len..])? {
                0 => break,
                n => len += n,
            }
        }
        if len == 0 && index > 0 {
            break;
        }
        tree.push(merkle::leaf(index, &chunk[..len]));
    }
    Ok(tree.root())
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [verb, plain, sealed] = args.as_slice() else {
        return Err("usage: seal_bench seal|open PLAIN SEALED".into());
    };
    let (plain, sealed) = (Path::new(plain), Path::new(sealed));
    // A fixed key: what is measured does not depend on it, and the two runs must agree on one.
    let kek = Kek::from_bytes(&mut [0x42; 32]);
    let seconds = match verb.as_str() {
        "seal" => {
            let start = Instant::now();
            seal_file(plain, sealed, &params(&kek), &mut |_| {})?;
            start.elapsed().as_secs_f64()
        }
        "open" => {
            let fixed = Header::read(&mut File::open(sealed)?)?.fixed().clone();
            let claims = FileClaims {
                file_id: fixed.file_id,
                plaintext_len: fixed.plaintext_len,
                plaintext_root: plaintext_root(plain)?,
                fixed_header_hash: fixed.hash(),
                owner_id: b"owner",
                model_name: "model",
                counter: 1,
            };
            let start = Instant::now();
            let plaintext = open_file(sealed, &kek, &claims, None, &mut |_| {})?;
            let seconds = start.elapsed().as_secs_f64();
            if plaintext.len() != fixed.plaintext_len {
                return Err("opened another length".into());
            }
            seconds
        }
        other => return Err(format!("unknown verb {other}").into()),
    };
    println!("{seconds:.4} {}", peak_rss_kib()?);
    Ok(())
}
