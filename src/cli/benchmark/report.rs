//! What a benchmark prints. Scripts read these lines: `name = value unit`.
#![expect(clippy::print_stdout, reason = "the command line talks to its user")]

use super::Options;
use super::load::Measured;
use super::server::Usage;
use super::validate::Compared;
use hdrhistogram::Histogram;
use std::time::Duration;

const PERCENTILES: [u64; 14] = [1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 100];

/// The load.
pub fn print_transfers(options: &Options, measured: &Measured) {
    println!(
        "{} batches in {} s",
        measured.requests,
        seconds(measured.elapsed)
    );
    println!("transfer batch size = {} txs", options.transfer_batch_size);
    println!(
        "transfer batch delay = {} us",
        options.transfer_batch_delay_us
    );
    println!("clients = {}", options.clients);
    println!(
        "load accepted = {} tx/s",
        rate(measured.objects, measured.elapsed)
    );
    print_latencies("batch", &measured.latencies);
}

/// The disk, by the median of its small durable writes, and how near the load came to it.
pub fn print_disk(options: &Options, measured: &Measured, write: Option<Duration>) {
    let Some(write) = write else {
        println!("disk write 4KiB p50 = unknown");
        return;
    };
    println!("disk write 4KiB p50 = {} us", write.as_micros());
    if options.clients == 1 && options.transfer_batch_size == 1 {
        let ratio = ratio_to_disk(measured.objects, measured.elapsed, write);
        println!("load accepted / disk write rate = {ratio}");
    }
}

/// The accounts.
pub fn print_accounts(measured: &Measured) {
    println!(
        "{} accounts in {} s",
        measured.objects,
        seconds(measured.elapsed)
    );
}

/// The queries.
pub fn print_queries(measured: &Measured) {
    println!(
        "{} queries in {} s, {} transfers found",
        measured.requests,
        seconds(measured.elapsed),
        measured.objects
    );
    print_latencies("query", &measured.latencies);
}

/// One batch.
pub fn print_batch(number: u64, size: u64, latency: Duration) {
    println!("batch {number}: {size} tx in {} ms", milliseconds(latency));
}

/// What was read back.
pub fn print_validated(compared: &Compared) {
    println!(
        "validated {} transfers, {} accounts",
        compared.transfers, compared.accounts
    );
}

/// What the server used.
///
/// # Errors
/// Never.
pub fn print_usage(usage: &Usage) -> anyhow::Result<()> {
    match usage.memory {
        Some(bytes) => println!("rss = {bytes} bytes"),
        None => println!("rss = unknown"),
    }
    println!("datafile empty = {} bytes", usage.file_empty);
    println!("datafile = {} bytes", usage.file);
    Ok(())
}

fn print_latencies(name: &str, latencies: &Histogram<u64>) {
    for (percentile, latency) in latency_lines(latencies) {
        println!(
            "{name} latency p{percentile} = {} ms",
            milliseconds(latency)
        );
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "percentiles are whole numbers up to 100"
)]
fn latency_lines(latencies: &Histogram<u64>) -> Vec<(u64, Duration)> {
    PERCENTILES
        .iter()
        .map(|p| {
            (
                *p,
                Duration::from_nanos(latencies.value_at_percentile(*p as f64)),
            )
        })
        .collect()
}

/// Events in a second.
fn rate(count: u64, elapsed: Duration) -> u128 {
    u128::from(count) * 1_000_000_000 / elapsed.as_nanos().max(1)
}

/// How many times as many events as writes that the disk can do one after the other.
fn ratio_to_disk(count: u64, elapsed: Duration, write: Duration) -> String {
    let thousandths = u128::from(count) * write.as_nanos() * 1000 / elapsed.as_nanos().max(1);
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}

fn seconds(duration: Duration) -> String {
    let hundredths = duration.as_millis() / 10;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

fn milliseconds(duration: Duration) -> String {
    let micros = duration.as_micros();
    format!("{}.{:03}", micros / 1000, micros % 1000)
}

#[cfg(test)]
mod tests {
    use super::{latency_lines, milliseconds, rate, ratio_to_disk, seconds};
    use hdrhistogram::Histogram;
    use std::time::Duration;

    #[test]
    fn numbers_are_printed_without_floating_point() {
        assert_eq!(milliseconds(Duration::from_micros(12_345)), "12.345");
        assert_eq!(milliseconds(Duration::from_micros(5)), "0.005");
        assert_eq!(seconds(Duration::from_millis(34_659)), "34.65");
        assert_eq!(rate(10_000_000, Duration::from_secs(34)), 294_117);
        // 1900 in a second, when the disk does 10,000.
        let ratio = ratio_to_disk(1900, Duration::from_secs(1), Duration::from_micros(100));
        assert_eq!(ratio, "0.190");
    }

    #[test]
    fn percentiles_come_from_the_histogram() {
        let mut latencies = Histogram::<u64>::new_with_bounds(1, 1_000_000, 3).unwrap();
        for value in 1..=100 {
            latencies.record(value).unwrap();
        }
        let lines = latency_lines(&latencies);
        assert_eq!(lines[0], (1, Duration::from_nanos(1)));
        assert_eq!(lines[6], (50, Duration::from_nanos(50)));
        assert_eq!(lines[13], (100, Duration::from_nanos(100)));
    }
}
