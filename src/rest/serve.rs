//! Connections: with a limit for the time that a request's head may take, which axum's own loop does not have.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::{Router, body::Body, extract::ConnectInfo, http::Request};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::{Service as _, ServiceExt as _, service_fn};

const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until `shutdown`, and lets the requests that are under way then come to their end.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let graceful = GracefulShutdown::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                // Out of file descriptors, or a client that is gone already: others may fare better.
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = shutdown.cancelled() => break,
        };
        let service = with_peer(router.clone(), peer);
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        let connection =
            builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service)).into_owned();
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                tracing::debug!(%peer, "connection: {error}");
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

fn with_peer(
    router: Router,
    peer: SocketAddr,
) -> impl tower::Service<Request<hyper::body::Incoming>, Response = axum::response::Response, Error = Infallible, Future: Send> + Clone
{
    service_fn(move |request: Request<hyper::body::Incoming>| {
        let router = router.clone();
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            let mut service = router.into_service::<Body>();
            service.ready().await?.call(request).await
        }
    })
}
