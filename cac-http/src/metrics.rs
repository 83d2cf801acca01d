//! What this process served, and how much there is of everything, for Prometheus.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use cac_core::overview::Overview;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Seconds.
const BUCKETS: [f64; 9] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 30.0];

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    /// The operation's id, or `none`: the labels are ours, never a client's.
    operation: String,
    status: u16,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Operation {
    operation: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Of {
    of: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Named {
    name: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Refused {
    service: String,
    reason: String,
}

/// Counters of this process since it began.
pub(crate) struct Served {
    requests: Family<Answered, Counter>,
    seconds: Family<Operation, Histogram, fn() -> Histogram>,
}

impl Default for Served {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        }
    }
}

impl Served {
    /// An answer's head was ready after this time; a stream goes on.
    pub(crate) fn answered(&self, operation: Option<&str>, status: u16, elapsed: Duration) {
        let operation = operation.unwrap_or("none").to_owned();
        self.seconds
            .get_or_create(&Operation {
                operation: operation.clone(),
            })
            .observe(elapsed.as_secs_f64());
        self.requests
            .get_or_create(&Answered { operation, status })
            .inc();
    }

    /// Everything in the text format of OpenMetrics.
    pub(crate) fn tell(&self, now: &Overview) -> String {
        let mut all = Registry::with_prefix("cac");
        all.register("http_requests", "Answered requests", self.requests.clone());
        all.register_with_unit(
            "http_request_duration",
            "Until the head of the answer",
            Unit::Seconds,
            self.seconds.clone(),
        );
        for (name, help, counts) in [
            ("jobs", "Jobs by status", &now.jobs),
            (
                "containers",
                "Containers by what works on them",
                &now.containers,
            ),
            ("services", "Services by type", &now.services),
            (
                "services_at_proxies",
                "Services by how they stand at the reverse proxies",
                &now.standings,
            ),
        ] {
            let family = Family::<Of, Gauge>::default();
            for (of, count) in counts {
                family.get_or_create(&Of { of: of.clone() }).set(*count);
            }
            all.register(name, help, family);
        }
        let proxies = Family::<Named, Gauge>::default();
        for (name, live) in &now.proxies {
            let name = name.clone();
            proxies.get_or_create(&Named { name }).set(i64::from(*live));
        }
        all.register(
            "proxy_is_current",
            "Whether the newest configuration is live at that reverse proxy",
            proxies,
        );
        let refused = Family::<Refused, Gauge<i64, AtomicI64>>::default();
        for (id, reason) in &now.refused {
            let service = Refused {
                service: id.to_string(),
                reason: reason.clone(),
            };
            refused.get_or_create(&service).set(1);
        }
        all.register(
            "service_refused",
            "Services that a reverse proxy cannot serve as they are, with the reason",
            refused,
        );
        for (name, help, count) in [
            (
                "services_left_out",
                "Services that are stored and not served as they are",
                now.services_left_out,
            ),
            ("nodes", "Hosts that containers may be made on", now.nodes),
        ] {
            let gauge = Gauge::<i64, AtomicI64>::default();
            gauge.set(count);
            all.register(name, help, gauge);
        }
        let mut told = String::new();
        text::encode(&mut told, &all).expect("a string takes everything");
        told
    }
}
