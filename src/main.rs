//! `appbucket-operator`: see the library's [`cli`](appbucket_operator::cli).

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    appbucket_operator::cli::main().await
}
