//! Fifty at once; and a second run over all of them, counted at both servers.

use std::{collections::BTreeSet, fmt::Write as _};

use kube::api::ListParams;

use crate::support::{ApiAudit, DEADLINE, Mc, MinioAudit, Provider, World, eventually};

const COUNT: usize = 50;

#[tokio::test]
async fn fifty_in_one_file_are_fifty_buckets_and_a_second_run_writes_nothing() {
    let world = World::new("fifty").await;
    let minio_audit = MinioAudit::start().await;
    let minio = world.own_minio(minio_audit.env()).await;
    let (provider, mc) = (Provider::Minio(minio.access()), Mc::administrator(&world, &minio.access()));
    let api_audit = ApiAudit::of_operator(&world);
    let mut file = String::new();
    for number in 0..COUNT {
        writeln!(
            file,
            "---\napiVersion: storage.openfactory.tech/v1alpha1\nkind: AppBucket\nmetadata: {{ name: demo-{number} }}\nspec: {{ appId: app-{number} }}"
        )
        .unwrap();
    }
    let wait = format!("--timeout={}s", DEADLINE.as_secs());
    let all_ready = ["wait", "--for=condition=Ready", "appbucket", "--all", &wait];

    let operator = world.operator(&provider, &[]).await;
    world.kubectl(&["apply", "-f", "-"], &file).await.unwrap();
    world.kubectl(&all_ready, "").await.unwrap();

    let objects = world.app_buckets().list(&ListParams::default()).await.unwrap().items;
    let of_status = |get: fn(&appbucket_operator::crd::AppBucketStatus) -> Option<String>| -> BTreeSet<String> {
        objects.iter().map(|object| get(object.status.as_ref().unwrap()).unwrap()).collect()
    };
    let (buckets, keys) = (of_status(|status| status.bucket_name.clone()), of_status(|status| status.access_key.clone()));
    assert_eq!((buckets.len(), keys.len()), (COUNT, COUNT));
    assert_eq!(mc.buckets().await.into_iter().collect::<BTreeSet<_>>(), buckets);
    assert_eq!(mc.users().await.into_iter().map(|(key, _)| key).collect::<BTreeSet<_>>(), keys);

    // Events are written last.
    for number in 0..COUNT {
        world.wait_event(&format!("demo-{number}"), "ProducerTokenMissing").await;
    }
    assert!(operator.stop().await.success());
    let (api_writes, calls) = (api_audit.writes().len(), minio_audit.calls(&mc).await);
    let minio_writes = calls.iter().filter(|call| call.is_write()).count();
    // Finalizer, Secret, status, two Events; policy, bucket, tag, user, the user's policy.
    assert_eq!((api_writes, minio_writes), (5 * COUNT, 5 * COUNT), "{calls:?}");

    let operator = world.operator(&provider, &[]).await;
    world.kubectl(&["apply", "-f", "-"], &file).await.unwrap();
    eventually("a pass over each of them", async || {
        let passes = std::fs::read_to_string(&operator.log).unwrap().matches("nothing to do").count();
        if passes >= COUNT { Ok(()) } else { Err(passes.to_string()) }
    })
    .await;
    world.kubectl(&all_ready, "").await.unwrap();
    assert!(operator.stop().await.success());
    let later: Vec<_> = minio_audit.calls(&mc).await.split_off(calls.len());
    let looked_at: BTreeSet<_> = later.iter().filter(|call| call.name == "GetBucketTagging").map(|call| &call.path).collect();
    assert_eq!(looked_at.len(), COUNT, "the operator did look at each bucket");
    let writes: Vec<_> = later.iter().filter(|call| call.is_write()).collect();
    assert!(writes.is_empty(), "{writes:?}");
    let writes: Vec<_> = api_audit.writes().split_off(api_writes);
    assert!(writes.is_empty(), "{writes:?}");
}
