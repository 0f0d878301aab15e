//! Reports from a secure processor in software, over a Unix socket: SIMULATED, NOT CONFIDENTIAL.
//!
//! ```text
//! request   u8 version = 1 || report data (64)
//! response  u8 version = 1 || u32 len || report || u32 len || certificate table          (big-endian)
//! ```
//! One exchange after the other on the stream that the simulator placed at launch. The report has the SNP format and so
//! its one length. The simulator is not trusted with our memory or our time: lengths have caps, each exchange has one
//! deadline, and after an exchange that broke off the stream is not used again, since nobody knows where it stands.

use crate::{AttestError, Attester, MAX_CERTIFICATE_TABLE_LEN, Platform, RawEvidence, SNP_REPORT_LEN};
use std::io::{self, Read, Write};
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The only version of the exchange.
const VERSION: u8 = 1;
/// A simulator signs in microseconds; this is for a machine busy with other things.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the simulator gave no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulatorError {
    /// No socket at the descriptor.
    #[error("no simulator at descriptor {fd}: start the enclave with `adyton-simulator launch` ({source})")]
    Descriptor {
        /// The descriptor.
        fd: RawFd,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// An earlier exchange broke off.
    #[error("an earlier exchange with the simulator broke off: launch the enclave again")]
    Broken,
    /// The exchange broke off.
    #[error("the simulator broke off: {0}")]
    Io(#[source] io::Error),
    /// No complete answer in time.
    #[error("no complete answer within {0:?}: the simulator hangs, restart it")]
    Timeout(Duration),
    /// Another version.
    #[error("the simulator speaks version {0}, this program version {VERSION}: use those of one release")]
    Version(u8),
    /// A length beyond its cap, or not that of a report.
    #[error("the simulator announces a {what} of {got} bytes, allowed are {allowed}")]
    Length {
        /// `report` or `certificate table`.
        what: &'static str,
        /// The length it announces.
        got: u32,
        /// The one allowed length of a report, or the cap of a table.
        allowed: usize,
    },
}

/// A simulator's socket.
#[derive(Debug)]
pub struct SimulatorPort {
    stream: Mutex<Option<UnixStream>>,
    timeout: Duration,
}

impl SimulatorPort {
    /// Speaks over a connected stream.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self { stream: Mutex::new(Some(stream)), timeout: DEFAULT_TIMEOUT }
    }

    /// Speaks over the stream that a launcher left at descriptor `fd`.
    ///
    /// # Errors
    /// [`SimulatorError::Descriptor`] if there is none.
    pub fn inherited(fd: RawFd) -> Result<Self, SimulatorError> {
        // A duplicate made by the kernel: taking the descriptor itself would need a promise that nobody else has it.
        let duplicate = || -> io::Result<UnixStream> {
            let own =
                rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
            let flags = rustix::process::PidfdGetfdFlags::empty();
            Ok(UnixStream::from(rustix::process::pidfd_getfd(own, fd, flags)?))
        };
        Ok(Self::new(duplicate().map_err(|source| SimulatorError::Descriptor { fd, source })?))
    }

    /// Sets the time for one whole exchange, 10 s unless said otherwise.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    fn exchange(&self, report_data: &[u8; 64]) -> Result<RawEvidence, SimulatorError> {
        let mut held = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        // Put back only after a whole exchange.
        let stream = held.take().ok_or(SimulatorError::Broken)?;
        let mut stream = Timed { stream, deadline: Instant::now() + self.timeout };
        let raw = self.exchange_on(&mut stream, report_data)?;
        *held = Some(stream.stream);
        Ok(raw)
    }

    fn exchange_on(
        &self,
        mut stream: &mut Timed,
        report_data: &[u8; 64],
    ) -> Result<RawEvidence, SimulatorError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => SimulatorError::Timeout(self.timeout),
            _ => SimulatorError::Io(error),
        };
        let mut request = vec![VERSION];
        request.extend_from_slice(report_data);
        stream.write_all(&request).map_err(failed)?;

        let [version] = read_array(&mut stream).map_err(failed)?;
        if version != VERSION {
            return Err(SimulatorError::Version(version));
        }
        let mut field = |what, allowed, exact| {
            let got = u32::from_be_bytes(read_array(&mut stream).map_err(failed)?);
            let len = usize::try_from(got).unwrap_or(usize::MAX);
            if len > allowed || (exact && len != allowed) {
                return Err(SimulatorError::Length { what, got, allowed });
            }
            let mut bytes = vec![0; len];
            stream.read_exact(&mut bytes).map_err(failed)?;
            Ok(bytes)
        };
        let report = field("report", SNP_REPORT_LEN, true)?;
        let certificate_table = field("certificate table", MAX_CERTIFICATE_TABLE_LEN, false)?;
        Ok(RawEvidence { platform: Platform::Simulated, report, certificate_table })
    }
}

impl Attester for SimulatorPort {
    fn attest(&self, report_data: &[u8; 64]) -> Result<RawEvidence, AttestError> {
        self.exchange(report_data)?.expect_report_data(report_data)
    }

    fn name(&self) -> &'static str {
        "simulator"
    }

    fn platform(&self) -> Platform {
        Platform::Simulated
    }
}

fn read_array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A stream whose reads and writes share one deadline, however small the pieces that arrive.
struct Timed {
    stream: UnixStream,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Timed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(bytes)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;
    use std::thread;

    fn answer(report_data: &[u8], table: &[u8]) -> Vec<u8> {
        let mut report = [0; SNP_REPORT_LEN];
        report[0x50..0x90].copy_from_slice(report_data);
        let mut bytes = vec![1];
        for field in [&report[..], table] {
            bytes.extend_from_slice(&u32::try_from(field.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(field);
        }
        bytes
    }

    /// A port whose other end answers `times` requests with what `serve` makes of their 65 bytes.
    fn port(times: usize, serve: impl Fn([u8; 65]) -> Vec<u8> + Send + 'static) -> SimulatorPort {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            for _ in 0..times {
                let Ok(request) = read_array(&mut theirs) else { return };
                // The other side may hang up as soon as it has seen enough.
                let _ = theirs.write_all(&serve(request));
            }
        });
        SimulatorPort::new(ours)
    }

    fn refused(bytes: Vec<u8>) -> SimulatorError {
        let port = port(1, move |_| bytes.clone());
        match port.attest(&[0x5a; 64]) {
            Err(AttestError::Simulator(error)) => {
                let again = port.attest(&[0x5a; 64]);
                assert!(matches!(again, Err(AttestError::Simulator(SimulatorError::Broken))), "{again:?}");
                error
            }
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    #[test]
    fn one_stream_answers_again_and_again() {
        let port = port(3, |request| {
            assert_eq!(request[0], 1);
            answer(&request[1..], b"table")
        });
        for byte in 1..4 {
            let evidence = port.attest(&[byte; 64]).unwrap();
            assert_eq!(evidence.platform, Platform::Simulated);
            assert_eq!(evidence.report[0x50..0x90], [byte; 64]);
            assert_eq!(evidence.certificate_table, b"table");
        }
    }

    #[test]
    fn the_launchers_descriptor_is_found() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let port = SimulatorPort::inherited(ours.as_raw_fd()).unwrap();
        drop(ours);
        thread::spawn(move || {
            let request: [u8; 65] = read_array(&mut theirs).unwrap();
            theirs.write_all(&answer(&request[1..], b"")).unwrap();
        });
        assert!(port.attest(&[7; 64]).is_ok());
        assert!(matches!(SimulatorPort::inherited(9999), Err(SimulatorError::Descriptor { fd: 9999, .. })));
    }

    #[test]
    fn a_report_over_other_data_is_an_error() {
        assert!(matches!(
            port(1, |_| answer(&[1; 64], b"")).attest(&[2; 64]),
            Err(AttestError::OtherReportData)
        ));
    }

    #[test]
    fn malformed_answers_are_named() {
        let good = answer(&[0x5a; 64], b"table");
        let with = |at: usize, bytes: &[u8]| {
            let mut changed = good.clone();
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            changed
        };
        let table_at = 5 + SNP_REPORT_LEN;
        assert!(matches!(refused(with(0, &[2])), SimulatorError::Version(2)));
        for len in [0, 1183, 1185, u32::MAX] {
            let error = refused(with(1, &len.to_be_bytes()));
            assert!(matches!(error, SimulatorError::Length { what: "report", .. }), "{error}");
        }
        let error = refused(with(table_at, &65537u32.to_be_bytes()));
        assert!(matches!(error, SimulatorError::Length { what: "certificate table", .. }), "{error}");
        for len in [0, 1, 4, 5, 700, table_at, good.len() - 1] {
            assert!(matches!(refused(good[..len].to_vec()), SimulatorError::Io(_)), "{len} bytes");
        }
    }

    #[test]
    fn silence_and_dripping_both_end() {
        for dripping in [false, true] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            thread::spawn(move || {
                // One byte each 20 ms never lets a single read time out.
                for byte in answer(&[0x5a; 64], b"") {
                    if dripping && theirs.write_all(&[byte]).is_err() {
                        break;
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            });
            let port = SimulatorPort::new(ours).with_timeout(Duration::from_millis(200));
            let started = Instant::now();
            let result = port.attest(&[0x5a; 64]);
            assert!(matches!(result, Err(AttestError::Simulator(SimulatorError::Timeout(_)))), "{result:?}");
            assert!(started.elapsed() < Duration::from_secs(5));
        }
    }
}
