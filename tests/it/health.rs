//! What the kubelet and Prometheus ask.

use crate::support::{Provider, TestProducer, World, condition, eventually, spec};

/// The value of a metric with those labels, in whatever order.
fn value(metrics: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let of_name = metrics.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    let line = of_name.clone().find(|line| labels.iter().all(|label| line.contains(label)))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn it_counts_what_it_does() {
    let world = World::new("metrics").await;
    let producer = TestProducer::start(&world).await;
    let mut minio = world.own_minio(vec![]).await;
    let args: Vec<_> = producer.args().into_iter().chain(["--resync", "300ms"]).collect();
    let operator = world.operator(&Provider::Minio(minio.access()), &args).await;
    eventually("readyz", async || match operator.ask("/readyz").await {
        (200, _) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    world.create("demo", spec("app")).await;
    world.wait("demo", "published", |object| condition(object, "EnvPublished") == "True").await;
    let metrics = eventually("the pass is counted", async || {
        let (_, metrics) = operator.ask("/metrics").await;
        let counted = value(&metrics, "appbucket_reconciles_total", &["outcome=\"Ready\""]).is_some();
        let ready = value(&metrics, "appbucket_buckets", &["status=\"ready\""]) == Some(1.0);
        if counted && ready { Ok(metrics) } else { Err(metrics) }
    })
    .await;
    for (name, labels, expected) in [
        ("appbucket_buckets", &["status=\"stub\""][..], 0.0),
        ("appbucket_backend_calls_total", &["operation=\"PutUser\"", "answer=\"Done\""], 1.0),
        ("appbucket_producer_calls_total", &["operation=\"Publish\"", "answer=\"Done\""], 1.0),
        ("appbucket_leader", &[], 1.0),
    ] {
        assert_eq!(value(&metrics, name, labels), Some(expected), "{name} {labels:?}: {metrics}");
    }
    assert!(!metrics.contains("demo") && !metrics.contains(&world.namespace), "labels do not grow with the objects");

    // Neither probe asks MinIO.
    minio.stop();
    eventually("the outage is counted", async || {
        let (_, metrics) = operator.ask("/metrics").await;
        let failed = value(&metrics, "appbucket_backend_calls_total", &["operation=\"Observe\"", "answer=\"Unavailable\""]);
        let retrying = value(&metrics, "appbucket_reconciles_total", &["outcome=\"Retrying\""]);
        if failed.is_some() && retrying.is_some() { Ok(()) } else { Err(metrics) }
    })
    .await;
    assert_eq!((operator.ask("/livez").await.0, operator.ask("/readyz").await.0), (200, 200));
}

/// Here it may not read; without the CRD it can't.
#[tokio::test]
async fn it_is_alive_but_not_ready_while_it_can_not_watch() {
    let mut world = World::new("unready").await;
    world.namespaces = vec!["kube-public".to_owned()];
    let operator = world.operator(&Provider::Stub, &[]).await;
    operator.wait_log("watching: ").await;
    let (status, text) = operator.ask("/readyz").await;
    assert!(status == 503 && text.contains("is the CRD installed"), "{status} {text}");
    assert_eq!(operator.ask("/livez").await.0, 200);
}
