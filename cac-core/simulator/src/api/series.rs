//! `rrddata`: what a container used, minute by minute. Before its first round Proxmox VE has no file of it.

use serde_json::{Value, json};

use super::{Call, lxc};
use crate::answer::{Refusal, Reply};
use crate::world::now;

/// Seconds between two rounds of Proxmox VE's own collector.
const ROUND: u64 = 10;

pub(crate) fn of(call: &Call) -> Reply {
    let world = call.core.world();
    let container = lxc::find(&world, call)?;
    let vmid = call.params.vmid();
    let born = container.created / 1000;
    if now() < born + ROUND {
        let text = format!(
            "RRD error: rrdcached@unix:/var/run/rrdcached.sock: rrd_fetch_r failed: opening \
             '/var/lib/rrdcached/db/pve2-vm/{vmid}': No such file or directory"
        );
        return Err(Refusal::failed(text));
    }
    let step = match call.params.text("timeframe") {
        "hour" => 60,
        "day" => 1800,
        "week" => 10_800,
        "month" => 43_200,
        _ => 604_800,
    };
    let row = lxc::row(vmid, container);
    let up = container
        .running
        .as_ref()
        .map(|running| running.since / 1000);
    let last = now() / step * step;
    let rows: Vec<Value> = (0..70)
        .rev()
        .map(|back| {
            let time = last - back * step;
            if time + step <= born {
                return json!({"time": time});
            }
            let mut point = json!({
                "time": time, "maxcpu": row["cpus"], "maxmem": row["maxmem"], "maxdisk": row["maxdisk"], "disk": 0,
            });
            if up.is_some_and(|up| time + step > up) {
                for (name, value) in [
                    ("cpu", json!(0.001)), ("mem", row["mem"].clone()), ("disk", row["disk"].clone()),
                    ("netin", json!(20)), ("netout", json!(10)), ("diskread", json!(0)), ("diskwrite", json!(0)),
                ] {
                    point[name] = value;
                }
            }
            point
        })
        .collect();
    Ok(json!(rows).into())
}
