use kube::ResourceExt;

use super::*;
use crate::{
    apps::Holder,
    controller::observe::OurSecret,
    credentials::SecretKey,
    fixtures::{app_bucket, grant, provisioned},
    identity::Identity,
    provider::{self, Grant},
};

const NOTHING: Observation =
    Observation { bucket: BucketState::Missing, policy: PartState::Missing, user: PartState::Missing, key_works: false };
const DONE: Observation =
    Observation { bucket: BucketState::Owned, policy: PartState::Current, user: PartState::Current, key_works: true };

fn credentials() -> Credentials {
    Credentials {
        endpoint: "http://minio:9000".to_owned(),
        bucket: "demo-123456".to_owned(),
        access_key: "AKIAAAAAAAAAAAAAAAAA".to_owned(),
        secret_key: SecretKey::parse("do-not-show-me").unwrap(),
        region: "us-east-1".to_owned(),
    }
}

fn ours() -> SecretState {
    SecretState::Ours(Box::new(OurSecret::holding(&credentials())))
}

fn seen(object: &AppBucket, secret: SecretState, backend: Observation) -> Seen {
    let identity = Identity::of(object);
    Seen {
        grant: Grant { bucket: identity.bucket_name.clone(), ..grant("demo") },
        identity,
        holder: Holder { namespace: "team".to_owned(), owner: None },
        app_id_allowed: true,
        secret,
        backend: Some(Ok(backend)),
    }
}

fn steps(object: &AppBucket, seen: &Seen) -> Vec<Step> {
    plan(object, seen, Kind::Minio, &credentials()).unwrap()
}

fn refusal(object: &AppBucket, seen: &Seen, provider: Kind) -> &'static str {
    match plan(object, seen, provider, &credentials()) {
        Err(Stop::Refused { reason, .. } | Stop::Retry { reason, .. }) => reason,
        Ok(steps) => panic!("{steps:?}"),
    }
}

#[test]
fn a_new_object_goes_all_the_way_finalizer_first_and_secret_last() {
    let object = app_bucket("demo");
    assert_eq!(
        steps(&object, &seen(&object, SecretState::Missing, NOTHING)),
        [Step::Adopt, Step::PutPolicy, Step::CreateBucket, Step::MarkBucket, Step::PutUser, Step::Verify, Step::CreateSecret]
    );
}

#[test]
fn a_converged_object_has_nothing_to_do() {
    let object = provisioned(app_bucket("demo"));
    assert_eq!(steps(&object, &seen(&object, ours(), DONE)), []);
}

#[test]
fn each_missing_part_is_put_back_and_no_other() {
    use Step::{CreateBucket, MarkBucket, PutPolicy, PutUser, Verify};
    let object = provisioned(app_bucket("demo"));
    for (backend, expected) in [
        (Observation { policy: PartState::Missing, ..DONE }, &[PutPolicy][..]),
        (Observation { policy: PartState::Changed, ..DONE }, &[PutPolicy]),
        (Observation { policy: PartState::Foreign, ..DONE }, &[PutPolicy]),
        (Observation { bucket: BucketState::Missing, key_works: false, ..DONE }, &[CreateBucket, MarkBucket, PutUser, Verify]),
        (Observation { bucket: BucketState::Unfinished, ..DONE }, &[MarkBucket]),
        (Observation { bucket: BucketState::Unmarked, ..DONE }, &[MarkBucket]),
        (Observation { user: PartState::Missing, key_works: false, ..DONE }, &[PutUser, Verify]),
        (Observation { user: PartState::Changed, ..DONE }, &[PutUser, Verify]),
        (Observation { key_works: false, ..DONE }, &[PutUser, Verify]),
    ] {
        assert_eq!(steps(&object, &seen(&object, ours(), backend)), expected, "{backend:?}");
    }
}

/// The key of a Secret that is not there is a new one: the user must get it, whatever it has now.
#[test]
fn without_a_secret_the_user_gets_the_key_before_the_secret_is_made() {
    let object = provisioned(app_bucket("demo"));
    assert_eq!(steps(&object, &seen(&object, SecretState::Missing, DONE)), [Step::PutUser, Step::Verify, Step::CreateSecret]);
}

#[test]
fn a_changed_secret_is_repaired_after_its_key_was_verified() {
    let object = provisioned(app_bucket("demo"));
    let mut moved = credentials();
    moved.endpoint = "http://elsewhere:9000".to_owned();
    let secret = SecretState::Ours(Box::new(OurSecret::holding(&moved)));
    assert_eq!(steps(&object, &seen(&object, secret, DONE)), [Step::RepairSecret]);
}

#[test]
fn what_is_not_ours_stops_it() {
    let (new, ready) = (app_bucket("demo"), provisioned(app_bucket("demo")));
    let foreign = Observation { bucket: BucketState::Foreign, ..NOTHING };
    let unmarked = Observation { bucket: BucketState::Unmarked, policy: PartState::Current, ..NOTHING };
    let policy = Observation { policy: PartState::Foreign, ..NOTHING };
    let stop = |object: &AppBucket, secret, backend| refusal(object, &seen(object, secret, backend), Kind::Minio);
    assert_eq!(stop(&new, SecretState::Foreign, NOTHING), reason::SECRET_NOT_OWNED);
    assert_eq!(stop(&ready, SecretState::Foreign, DONE), reason::SECRET_NOT_OWNED);
    assert_eq!(stop(&new, SecretState::Leaving, NOTHING), reason::PROVISIONING);
    assert_eq!(stop(&new, SecretState::Missing, foreign), reason::BUCKET_NOT_OWNED);
    assert_eq!(stop(&ready, ours(), foreign), reason::BUCKET_NOT_OWNED);
    assert_eq!(
        stop(&new, SecretState::Missing, unmarked),
        reason::BUCKET_NOT_OWNED,
        "it holds something that we did not see made"
    );
    assert_eq!(stop(&new, SecretState::Missing, policy), reason::BUCKET_NOT_OWNED);
}

#[test]
fn apps_of_others_and_demotion_are_refused_before_anything_else() {
    let object = provisioned(app_bucket("demo"));
    let holder =
        |namespace: &str, owner: Option<&str>| Holder { namespace: namespace.to_owned(), owner: owner.map(ToOwned::to_owned) };
    let elsewhere = Seen { holder: holder("other", None), ..seen(&object, ours(), NOTHING) };
    assert_eq!(refusal(&object, &elsewhere, Kind::Minio), reason::APP_OWNED_BY_ANOTHER_NAMESPACE);
    let mut owned = object.clone();
    owned.annotations_mut().insert(crate::crd::OWNER_ANNOTATION.to_owned(), "bob".to_owned());
    let taken = Seen { holder: holder("team", Some("ann")), ..seen(&owned, ours(), NOTHING) };
    assert_eq!(refusal(&owned, &taken, Kind::Minio), reason::APP_OWNED_BY_ANOTHER_PRINCIPAL);
    let forbidden = Seen { app_id_allowed: false, ..seen(&object, ours(), NOTHING) };
    assert_eq!(refusal(&object, &forbidden, Kind::Minio), reason::APP_ID_NOT_ALLOWED);
    assert_eq!(refusal(&object, &seen(&object, ours(), NOTHING), Kind::Stub), reason::DEMOTION_REFUSED);
}

#[test]
fn errors_of_the_provider_are_classed() {
    let object = app_bucket("demo");
    for (error, expected) in [
        (provider::Error::Unavailable(String::new()), reason::BACKEND_UNAVAILABLE),
        (provider::Error::Denied(String::new()), reason::BACKEND_DENIED),
        (provider::Error::Invalid(String::new()), reason::BACKEND_INVALID),
        (provider::Error::NotOwned(String::new()), reason::BUCKET_NOT_OWNED),
    ] {
        let seen = Seen { backend: Some(Err(error)), ..seen(&object, SecretState::Missing, NOTHING) };
        assert_eq!(refusal(&object, &seen, Kind::Minio), expected);
    }
}

fn deleting(mut object: AppBucket, policy: DeletionPolicy) -> AppBucket {
    object.metadata.deletion_timestamp = object.metadata.creation_timestamp.clone();
    object.spec.deletion_policy = policy;
    object
}

#[test]
fn retain_touches_nothing_at_the_provider() {
    let object = deleting(provisioned(app_bucket("demo")), DeletionPolicy::Retain);
    let seen = Seen { backend: None, ..seen(&object, SecretState::Missing, DONE) };
    assert_eq!(steps(&object, &seen), [Step::LeaveEnvironment, Step::Release]);
    assert_eq!(plan(&object, &seen, Kind::Stub, &credentials()).unwrap().len(), 2, "also in stub mode");
}

#[test]
fn delete_takes_what_is_ours_and_there() {
    use Step::{DeleteBucket, DeletePolicy, DeleteUser, LeaveEnvironment, Release};
    let object = deleting(provisioned(app_bucket("demo")), DeletionPolicy::Delete);
    for (backend, expected) in [
        (DONE, &[DeleteBucket, DeleteUser, DeletePolicy, LeaveEnvironment, Release][..]),
        (NOTHING, &[LeaveEnvironment, Release]),
        (Observation { bucket: BucketState::Foreign, policy: PartState::Foreign, ..NOTHING }, &[LeaveEnvironment, Release]),
        (Observation { user: PartState::Current, ..NOTHING }, &[DeleteUser, LeaveEnvironment, Release]),
    ] {
        assert_eq!(steps(&object, &seen(&object, SecretState::Missing, backend)), expected, "{backend:?}");
    }
    assert_eq!(refusal(&object, &seen(&object, SecretState::Missing, DONE), Kind::Stub), reason::DEMOTION_REFUSED);
}

#[test]
fn an_object_that_was_never_adopted_just_goes() {
    let object = deleting(app_bucket("demo"), DeletionPolicy::Delete);
    assert_eq!(steps(&object, &seen(&object, SecretState::Missing, NOTHING)), []);
}

#[test]
fn a_paused_object_is_left_alone_whatever_is_asked_of_it() {
    let mut new = app_bucket("demo");
    new.annotations_mut().insert(crate::crd::RECONCILE_ANNOTATION.to_owned(), "paused".to_owned());
    let leaving = deleting(provisioned(new.clone()), DeletionPolicy::Delete);
    for object in [new, leaving] {
        assert_eq!(refusal(&object, &seen(&object, SecretState::Missing, NOTHING), Kind::Minio), reason::PAUSED);
    }
}
