//! Prints the results: hull's own numbers, and hull as a fraction of each peer.

use std::time::Duration;

use crate::Peer;
use crate::life::{ROWS, Results};
use crate::measure::Cost;

/// Prints one table for each quantity. A ratio below 1 means that hull needs less.
pub fn print(peers: &[Peer], results: &Results) {
    let middle = |costs: &[Cost], of: fn(&Cost) -> f64| median(costs.iter().map(of).collect());
    section("wall time, ms (median)", peers, |row, peer| {
        results.costs.get(&(row, peer)).and_then(|costs| middle(costs, |cost| millis(cost.wall)))
    });
    section("processor time, ms (median)", peers, |row, peer| {
        results.costs.get(&(row, peer)).and_then(|costs| middle(costs, |cost| millis(cost.cpu)))
    });
    section("peak memory, MB (largest)", peers, |row, peer| {
        let costs = results.costs.get(&(row, peer))?;
        #[expect(clippy::cast_precision_loss, reason = "kilobytes of a process fit")]
        costs.iter().map(|cost| cost.peak as f64 / 1024.0).reduce(f64::max)
    });
    section("system calls of all processes", peers, |row, peer| {
        #[expect(clippy::cast_precision_loss, reason = "counts of system calls fit")]
        results.calls.get(&(row, peer)).map(|calls| *calls as f64)
    });
    for failure in &results.failures {
        println!("failed: {failure}");
    }
}

fn section(title: &str, peers: &[Peer], value: impl Fn(usize, usize) -> Option<f64>) {
    println!("\n{title}");
    print!("{:24}", "");
    peers.iter().for_each(|peer| print!("{:>10}", peer.name));
    peers.iter().skip(1).for_each(|peer| print!("{:>14}", format!("hull/{}", peer.name)));
    println!();
    for (row, name) in ROWS.iter().enumerate() {
        let values: Vec<Option<f64>> = (0..peers.len()).map(|peer| value(row, peer)).collect();
        if values.iter().all(Option::is_none) {
            continue;
        }
        print!("{name:24}");
        values.iter().for_each(|value| {
            print!("{:>10}", value.map_or_else(|| "-".into(), |value| format!("{value:.2}")))
        });
        for peer in values.iter().skip(1) {
            let ratio = values[0].zip(*peer).map(|(own, other)| own / other);
            print!("{:>14}", ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}")));
        }
        println!();
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
