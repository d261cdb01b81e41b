//! The operator's behaviour, on a real API server and a real MinIO. Runs beside `devcluster`: `make test`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "these are tests")]

mod chart;
mod crash;
mod crd;
mod deletion;
mod drift;
mod environment;
mod fifty;
mod gitops;
mod health;
mod leader;
mod mcp;
mod process;
mod promotion;
mod provider_contract;
mod provision;
mod refusal;
mod rest;
mod support;
