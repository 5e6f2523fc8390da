//! What a benchmark prints. Scripts read these lines: `name = value unit`.
#![expect(clippy::print_stdout, reason = "the command line talks to its user")]

use super::load::Measured;
use super::options::Options;
use super::query::Topic;
use super::server::Usage;
use super::validate::Compared;
use super::windows::Windows;
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

/// The load by windows, and its longest batch.
pub fn print_windows(options: &Options, measured: &Measured) {
    let windows = Windows::new(&measured.marks);
    println!("windows = {} of {} tx", windows.count, options.window);
    print_known("window second", windows.second, "tx/s");
    print_known("window last", windows.last, "tx/s");
    let percent = windows.ratio_thousandths().map(|n| decimal(n, 10));
    print_known("window last / second", percent, "%");
    let latencies = &measured.latencies;
    let median = latencies.value_at_quantile(0.5);
    let ratio = (u128::from(latencies.max()) * 1000).checked_div(median.into());
    let ratio = ratio.map(|n| decimal(n, 1000));
    print_known("batch latency p100 / p50", ratio, "");
}

/// What the server used for the load.
#[derive(Clone, Copy, Debug)]
pub struct LoadUsage {
    /// Bytes that it wrote.
    pub written: Option<u64>,
    /// The most memory until the end of the load, in bytes.
    pub memory_peak: Option<u64>,
}

/// What the server used for the load.
pub fn print_load_usage(measured: &Measured, usage: &LoadUsage) {
    let written = usage.written;
    let written = written.and_then(|bytes| per(bytes, measured.objects));
    print_known("bytes written per transfer", written, "bytes");
    print_known("load memory peak", usage.memory_peak, "bytes");
    print_known("load memory sampled", measured.memory_sampled, "bytes");
}

/// What the data file has in the end.
pub fn print_file(measured: &Measured, usage: &Usage) {
    let growth = usage.file.saturating_sub(usage.file_empty);
    let growth = per(growth, measured.objects);
    print_known("datafile growth per transfer", growth, "bytes");
    let checkpointed = measured.created_until(usage.live.timestamp);
    println!("transfers in the checkpoint = {checkpointed}");
    let live = per(usage.live.bytes, checkpointed);
    print_known("live bytes per transfer", live, "bytes");
}

/// A start, from the process to its first reply.
pub fn print_start(after: &str, took: Duration) {
    println!("start after {after} = {} ms", milliseconds(took));
}

/// A series of queries for the history of accounts, `state` being that of the server's memory.
pub fn print_series(topic: Topic, state: &str, measured: &Measured) {
    let name = format!("{}{state}", topic.name());
    let latencies = &measured.latencies;
    for (which, nanoseconds) in [
        ("p50", latencies.value_at_quantile(0.5)),
        ("p99", latencies.value_at_quantile(0.99)),
        ("max", latencies.max()),
    ] {
        let latency = milliseconds(Duration::from_nanos(nanoseconds));
        println!("{name} {which} = {latency} ms");
    }
    let mean = per(measured.objects, measured.requests);
    print_known(&format!("{name} results"), mean, "per query");
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
pub fn print_batch(number: u64, posting: bool, size: u64, latency: Duration) {
    let phase = if posting { " posted" } else { "" };
    println!(
        "batch {number}{phase}: {size} tx in {} ms",
        milliseconds(latency)
    );
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

/// A line that scripts find even if nobody knows its value.
fn print_known(name: &str, value: Option<impl std::fmt::Display>, unit: &str) {
    match value {
        Some(value) => println!("{}", format!("{name} = {value} {unit}").trim_end()),
        None => println!("{name} = unknown"),
    }
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

/// A quotient with one decimal.
fn per(sum: u64, count: u64) -> Option<String> {
    let tenths = (u128::from(sum) * 10).checked_div(count.into())?;
    Some(decimal(tenths, 10))
}

/// A number of tenths (`scale` 10) or thousandths (1000), with their decimals.
fn decimal(number: u128, scale: u128) -> String {
    let digits = if scale == 10 { 1 } else { 3 };
    format!("{}.{:0digits$}", number / scale, number % scale)
}

/// Events in a second.
pub fn rate(count: u64, elapsed: Duration) -> u128 {
    u128::from(count) * 1_000_000_000 / elapsed.as_nanos().max(1)
}

/// How many times as many events as writes that the disk can do one after the other.
fn ratio_to_disk(count: u64, elapsed: Duration, write: Duration) -> String {
    let thousandths = u128::from(count) * write.as_nanos() * 1000 / elapsed.as_nanos().max(1);
    decimal(thousandths, 1000)
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
    use super::{latency_lines, milliseconds, per, rate, ratio_to_disk, seconds};
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
        assert_eq!(per(1000, 3).as_deref(), Some("333.3"));
        assert_eq!(per(1000, 0), None);
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
