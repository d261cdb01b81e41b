//! Objects for unit tests.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::{
    crd::{AppBucket, AppBucketSpec, AppBucketStatus, BucketStatus, DEFAULT_REGION, DeletionPolicy, EnvPolicy},
    identity::Identity,
    provider::{Grant, Owner},
};

/// A new `AppBucket` of the app `app`, as the API server hands it out.
pub fn app_bucket(name: &str) -> AppBucket {
    let mut object = AppBucket::new(
        name,
        AppBucketSpec {
            app_id: "app".to_owned(),
            slug: None,
            region: DEFAULT_REGION.to_owned(),
            deletion_policy: DeletionPolicy::Retain,
            secret_name: None,
            env_policy: EnvPolicy::Publish,
        },
    );
    object.metadata.namespace = Some("team".to_owned());
    object.metadata.uid = Some(format!("uid-of-{name}"));
    object.metadata.generation = Some(1);
    object.metadata.resource_version = Some("1".to_owned());
    object.metadata.creation_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    object
}

/// The same object with a bucket.
pub fn provisioned(mut object: AppBucket) -> AppBucket {
    let bucket_name = Some(Identity::of(&object).bucket_name);
    let status = AppBucketStatus { status: Some(BucketStatus::Ready), bucket_name, ..Default::default() };
    object.status = Some(status);
    object.finalizers_mut().push(crate::crd::FINALIZER.to_owned());
    object
}

/// The grant of a bucket of that name.
pub fn grant(name: &str) -> Grant {
    Grant {
        bucket: format!("{name}-123456"),
        access_key: "AKIAAAAAAAAAAAAAAAAA".to_owned(),
        region: DEFAULT_REGION.to_owned(),
        owner: Owner { cluster: "cluster".to_owned(), object: format!("team/{name}"), uid: "uid".to_owned() },
    }
}
