//! `bench`: puts a load on the daemon and tells how it bore it. In a namespace of its own, which is removed afterwards; one
//! that exists is never touched.
//!
//! It compares machines and settings. How Commonhold compares with other stores is the matter of the crate in `bench/`.

use std::time::Duration;

use clap::{Args, ValueEnum as _};
use serde_json::{Value, json};

use super::args::DurabilityArg;
use super::context::Context;
use super::failure::{Exit, Failure};
use super::human::{self, number};
use super::load::{self, Done, Load};
use super::output::{Out, print_json};
use super::quantiles::Quantiles;
use crate::client;
use crate::client::blocking::{Batch, Client, Namespace};
use crate::proto::limits::MAX_VALUE_BYTES;
use crate::proto::{Condition, Fault, NamespaceInfo};

/// Options of `bench`.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// The namespace, which must not exist; it is dropped afterwards.
    #[arg(long, value_name = "NS", default_value = "commonhold_bench")]
    namespace: String,
    /// How many connections, with a thread each.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=4_000))]
    connections: u64,
    /// How many requests each of them has on their way at once.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    in_flight: u64,
    /// How many keys are read and written, all stored beforehand.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    keys: u64,
    /// The length of a value as JSON text.
    #[arg(long, value_name = "S", default_value = "830", value_parser = value_bytes)]
    value_size: u64,
    /// How many of a hundred requests read; the others write.
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=100))]
    reads: u64,
    /// How long it goes on.
    #[arg(long, value_name = "T", default_value = "5s", value_parser = human::parse_span, conflicts_with = "requests")]
    time: Duration,
    /// So many requests in all, however long they take.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// How durable a write must be before it is answered; less than the store has gives what the store has.
    #[arg(long, value_enum, value_name = "D")]
    durability: Option<DurabilityArg>,
}

fn value_bytes(text: &str) -> Result<u64, String> {
    let bytes = human::parse_size(text)?;
    if bytes > MAX_VALUE_BYTES as u64 {
        return Err(format!("{} bytes are the most that a value may have", number(MAX_VALUE_BYTES as u64)));
    }
    human::at_least(bytes, 2, "2", "no JSON string is shorter")
}

/// Runs the command.
pub(super) fn run(args: &BenchArgs, context: &Context) -> Result<(), Failure> {
    let (client, namespace) = context.persistent(&args.namespace)?;
    claim(&client, &namespace)?;
    // From here on it is ours, and goes whatever happens.
    let measured = measure(args, context, &namespace);
    let dropped = namespace.drop_namespace();
    let (load, done) = measured?;
    dropped.map_err(|error| {
        let place = namespace.place();
        Failure::from(error).and(format_args!("; {place} is still there: `commonhold drop {}`", args.namespace))
    })?;
    if context.json() {
        return print_json(&answer(args, &load, &done));
    }
    tell(&done)
}

/// Stores the first record, if there is no such namespace. What exists may be somebody's data.
fn claim(client: &Client, namespace: &Namespace) -> Result<(), Failure> {
    let place = namespace.place();
    let refused = || {
        let words = format_args!(
            "there is a namespace {place} already, and a load is not put on somebody's data: name another with --namespace, \
             or, if an interrupted bench has left it, `commonhold drop {}`",
            place.namespace
        );
        Failure::new(Exit::Refused, words)
    };
    let is_it =
        |info: &NamespaceInfo| info.workspace == place.workspace.as_str() && info.namespace == place.namespace.as_str();
    if client.namespaces()?.iter().any(is_it) {
        return Err(refused());
    }
    // Of two that have come so far at once, one is first.
    let first = Batch::new().put_raw_if(namespace, &load::key(0), "0", Condition::IfAbsent)?;
    match client.write(&first) {
        Err(client::Error::Fault(Fault::ConditionFailed { .. })) => Err(refused()),
        done => Ok(done.map(drop)?),
    }
}

fn measure(args: &BenchArgs, context: &Context, namespace: &Namespace) -> Result<(Load, Done), Failure> {
    let load = Load {
        in_flight: args.in_flight as usize,
        keys: args.keys,
        reads: args.reads,
        value_bytes: args.value_size as usize,
        time: args.time,
        requests: args.requests,
    };
    context.talk(format_args!("storing {} records of {} bytes", number(args.keys), number(args.value_size)));
    let value = load::value(load.value_bytes, 0);
    let mut writer = namespace.bulk_writer();
    for key in 0..args.keys {
        writer.put_raw(&load::key(key), &value)?;
    }
    writer.finish()?;
    let connection = |_| -> Result<Namespace, Failure> {
        let (_client, namespace) = context.persistent(&args.namespace)?;
        Ok(args.durability.map_or_else(|| namespace.clone(), |durability| namespace.with(durability.into())))
    };
    let connections = (0..args.connections).map(connection).collect::<Result<Vec<_>, _>>()?;
    let length =
        args.requests.map_or_else(|| human::span(args.time), |requests| format!("{} requests", number(requests)));
    let (count, in_flight) = (number(args.connections), number(args.in_flight));
    context.talk(format_args!("{length}, {count} connections with {in_flight} in flight, {} % reads", args.reads));
    let done = load::put_on(&connections, load)?;
    Ok((load, done))
}

/// The names of what is told, and of how many of a thousand calls.
const QUANTILES: [(&str, u64); 3] = [("p50", 500), ("p99", 990), ("p99.9", 999)];

/// The requests a second of one kind while all kinds were running.
fn a_second(quantiles: &Quantiles, took: Duration) -> u64 {
    (u128::from(quantiles.calls()) * 1_000_000_000 / took.as_nanos().max(1)) as u64
}

fn answer(args: &BenchArgs, load: &Load, done: &Done) -> Value {
    let microseconds = |time: Duration| (time.as_secs_f64() * 1e9).round() / 1e3;
    let of_kind = |quantiles: &Quantiles| {
        let mut figures = json!({"requests": quantiles.calls(), "per_second": a_second(quantiles, done.took)});
        for (name, of_thousand) in QUANTILES {
            figures[format!("{}_us", name.replace('.', "_"))] = json!(microseconds(quantiles.within(of_thousand)));
        }
        figures["max_us"] = json!(microseconds(quantiles.longest()));
        figures
    };
    let durability = args.durability.and_then(|durability| Some(durability.to_possible_value()?.get_name().to_owned()));
    json!({
        "connections": args.connections,
        "in_flight": load.in_flight,
        "keys": load.keys,
        "value_bytes": load.value_bytes,
        "durability": durability,
        "took_s": done.took.as_secs_f64(),
        "get": of_kind(&done.gets),
        "put": of_kind(&done.puts),
    })
}

fn tell(done: &Done) -> Result<(), Failure> {
    let mut all = done.gets.clone();
    all.add(&done.puts);
    let mut out = Out::new();
    let heads = ["p50", "p99", "p99.9", "worst"].map(|head| format!("{head:>10}")).concat();
    out.line(&format!("{:<4}{:>12}{:>12}{heads}", "", "requests", "a second"))?;
    for (name, quantiles) in [("get", &done.gets), ("put", &done.puts), ("all", &all)] {
        if quantiles.calls() == 0 {
            continue;
        }
        let [p50, p99, p99_9] = QUANTILES.map(|(_, of_thousand)| short(quantiles.within(of_thousand)));
        let (calls, a_second) = (number(quantiles.calls()), number(a_second(quantiles, done.took)));
        let worst = short(quantiles.longest());
        out.line(&format!("{name:<4}{calls:>12}{a_second:>12}{p50:>10}{p99:>10}{p99_9:>10}{worst:>10}"))?;
    }
    out.finish()
}

/// Three digits in the unit that suits them.
fn short(time: Duration) -> String {
    let nanoseconds = time.as_secs_f64() * 1e9;
    let (value, unit) = match nanoseconds {
        ..1e6 => (nanoseconds / 1e3, "µs"),
        ..1e9 => (nanoseconds / 1e6, "ms"),
        _ => (nanoseconds / 1e9, "s"),
    };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_unit_that_suits_them() {
        let told = [1_500, 42_700, 999_000, 5_000_000, 1_250_000_000].map(|ns| short(Duration::from_nanos(ns)));
        assert_eq!(told, ["1.50 µs", "42.7 µs", "999 µs", "5.00 ms", "1.25 s"]);
    }
}
