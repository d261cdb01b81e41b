use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::*;
use crate::fixtures::app_bucket;

const T0: i64 = 1_700_000_000;

/// The status of the object after one more pass, at that second.
fn pass(
    object: &AppBucket,
    provider: Kind,
    outcome: Result<(), &Stop>,
    environment: Option<&Environment>,
    second: i64,
) -> AppBucketStatus {
    let endpoint = Url::parse("http://minio:9000").unwrap();
    let identity = Identity::of(object);
    let now = Timestamp::from_second(second).unwrap();
    let bucket_refs = vec![identity.bucket_id.clone()];
    next_status(object, Facts { identity: &identity, endpoint: &endpoint, provider, outcome, environment, bucket_refs, now })
}

fn published() -> Environment {
    Environment::Published("digest".to_owned())
}

fn ready() -> AppBucket {
    let mut object = app_bucket("demo");
    object.status = Some(pass(&object, Kind::Minio, Ok(()), Some(&published()), T0));
    object
}

fn told<'a>(status: &'a AppBucketStatus, type_: &str) -> Option<(&'a str, &'a str)> {
    status.condition(type_).map(|condition| (condition.status.as_str(), condition.reason.as_str()))
}

#[test]
fn a_pass_that_went_well_tells_all() {
    let status = ready().status.unwrap();
    assert_eq!(status.endpoint_url.as_deref(), Some("http://minio:9000"), "without the slash of an empty path");
    assert_eq!(status.shared_host.as_deref(), Some("minio"));
    assert_eq!((status.observed_generation, status.status), (Some(1), Some(BucketStatus::Ready)));
    let types: Vec<_> = status.conditions.iter().map(|condition| condition.type_.as_str()).collect();
    assert_eq!(types, [READY, BUCKET_PROVISIONED, CREDENTIALS_READY, ENV_PUBLISHED]);
    assert!(status.conditions.iter().all(|condition| condition.status == "True" && condition.observed_generation == Some(1)));
}

#[test]
fn the_stub_says_that_it_is_one() {
    let status = pass(&app_bucket("demo"), Kind::Stub, Ok(()), Some(&published()), T0);
    assert_eq!(status.status, Some(BucketStatus::Stub));
    assert_eq!(told(&status, READY), Some(("True", reason::STUB)));
}

#[test]
fn another_pass_that_finds_the_same_changes_nothing() {
    let object = ready();
    assert_eq!(object.status, Some(pass(&object, Kind::Minio, Ok(()), Some(&published()), T0 + 100)));
    let stop = Stop::retry(reason::BACKEND_UNAVAILABLE, "down");
    let down = AppBucket { status: Some(pass(&object, Kind::Minio, Err(&stop), None, T0 + 100)), ..object };
    assert_eq!(down.status, Some(pass(&down, Kind::Minio, Err(&stop), None, T0 + 200)), "nor does another that fails alike");
}

#[test]
fn an_outage_makes_no_working_bucket_unready_and_goes_by() {
    let mut object = ready();
    object.metadata.generation = Some(2);
    let stop = Stop::retry(reason::BACKEND_UNAVAILABLE, "down");
    let status = pass(&object, Kind::Minio, Err(&stop), None, T0 + 100);
    for type_ in [READY, BUCKET_PROVISIONED, CREDENTIALS_READY, ENV_PUBLISHED] {
        let condition: &Condition = status.condition(type_).unwrap();
        assert_eq!((condition.status.as_str(), condition.observed_generation), ("True", Some(2)), "{type_}");
        assert_eq!(condition.last_transition_time.0.as_second(), T0, "{type_}");
    }
    assert_eq!(told(&status, RECONCILING), Some(("True", reason::BACKEND_UNAVAILABLE)));
    object.status = Some(status);
    let status = pass(&object, Kind::Minio, Ok(()), Some(&published()), T0 + 200);
    assert_eq!(told(&status, RECONCILING), None);
}

#[test]
fn a_new_object_that_is_stopped_is_unready_for_that_reason() {
    let stop = Stop::retry(reason::BACKEND_UNAVAILABLE, "down");
    let status = pass(&app_bucket("demo"), Kind::Minio, Err(&stop), None, T0);
    assert_eq!(status.status, None, "there is no bucket yet");
    assert_eq!(told(&status, READY), Some(("False", reason::BACKEND_UNAVAILABLE)));
    assert_eq!(told(&status, ENV_PUBLISHED), Some(("False", reason::NOT_PROVISIONED)));
}

#[test]
fn what_turned_out_to_be_somebody_elses_is_lost() {
    let object = ready();
    let secret = pass(&object, Kind::Minio, Err(&Stop::refused(reason::SECRET_NOT_OWNED, "theirs")), None, T0 + 1);
    assert_eq!(told(&secret, STALLED), Some(("True", reason::SECRET_NOT_OWNED)));
    assert_eq!(told(&secret, READY), Some(("False", reason::SECRET_NOT_OWNED)));
    assert_eq!(told(&secret, CREDENTIALS_READY), Some(("False", reason::SECRET_NOT_OWNED)));
    assert_eq!(told(&secret, BUCKET_PROVISIONED), Some(("True", reason::PROVISIONED)), "the bucket is still there");
    let bucket = pass(&object, Kind::Minio, Err(&Stop::refused(reason::BUCKET_NOT_OWNED, "theirs")), None, T0 + 1);
    assert_eq!(told(&bucket, BUCKET_PROVISIONED), Some(("False", reason::BUCKET_NOT_OWNED)));
}

#[test]
fn a_changed_condition_has_a_new_transition_time_and_only_that_one() {
    let object = ready();
    let superseded =
        Environment::NotPublished { reason: reason::SUPERSEDED, message: "newer".to_owned(), retry: Retry::OnChange };
    let status = pass(&object, Kind::Minio, Ok(()), Some(&superseded), T0 + 100);
    let time = |type_| status.condition(type_).unwrap().last_transition_time.0.as_second();
    assert_eq!((time(READY), time(ENV_PUBLISHED)), (T0, T0 + 100));
    let env = status.env.unwrap();
    assert_eq!((env.published, env.keys.len(), env.hash), (false, 0, None));
}

#[test]
fn a_request_for_a_reconcile_is_answered() {
    let mut object = ready();
    object.metadata.annotations = Some([(REQUESTED_AT_ANNOTATION.to_owned(), "token".to_owned())].into());
    let status = pass(&object, Kind::Minio, Ok(()), Some(&published()), T0);
    assert_eq!(status.last_handled_reconcile_at.as_deref(), Some("token"));
}

#[test]
fn an_object_that_is_deleted_and_stuck_is_unready_and_says_why() {
    let mut object = ready();
    object.metadata.deletion_timestamp = object.metadata.creation_timestamp.clone();
    let status = pass(&object, Kind::Minio, Err(&Stop::refused(reason::BUCKET_NOT_EMPTY, "3 objects")), None, T0);
    assert_eq!(told(&status, STALLED), Some(("True", reason::BUCKET_NOT_EMPTY)));
    assert_eq!(told(&status, READY), Some(("False", reason::DELETING)));
    assert_eq!(status.condition(READY).unwrap().message, "3 objects");
}
