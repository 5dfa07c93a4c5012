//! Simulates a cluster with the very state machines and pick of the product, and prints how even connections are:
//! most of a backend over the mean, for its weight; median and 95th percentile of the runs.
//!
//!     cargo run --release -p lb-cluster --example simulate            a hundred nodes, a minute or so
//!     cargo run --release -p lb-cluster --example simulate -- all     up to 5,000 nodes as well
//!
//! Network: a frame takes 0.25 to 0.75 ms unless the row says otherwise, an agent wakes within 0.2 ms.

mod cluster;
mod node;
mod rows;

use node::Mode;

fn main() {
    let all = std::env::args().nth(1).is_some_and(|argument| argument == "all");
    let rows = rows::SMALL.iter().chain(rows::LARGE.iter().filter(|_| all));
    println!("| scenario | per node | order | shared | even, % | frames, kB a node | exact |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for row in rows {
        let [random, order, shared, exact] =
            [Mode::RandomTies, Mode::Order, Mode::Shared, Mode::Exact].map(|mode| row.figures(mode));
        println!(
            "| {} | {:.2}/{:.2} | {:.2}/{:.2} | {:.2}/{:.2} | {:.0} | {:.0}, {:.0} | {:.2} |",
            row.name,
            random.median,
            random.p95,
            order.median,
            order.p95,
            shared.median,
            shared.p95,
            shared.even,
            shared.frames,
            shared.bytes / 1e3,
            exact.median,
        );
    }
}

#[cfg(test)]
mod tests;
