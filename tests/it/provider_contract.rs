//! One suite for every provider: the contract of `provider::Provider`. Then what MinIO alone must show.

use appbucket_operator::{
    credentials::SecretKey,
    provider::{
        BucketState, Error, Grant, Observation, Owner, PartState, Provider, Stub,
        minio::{Minio, Settings, seal::Algorithm},
    },
};
use devcluster::MinioAccess;

use crate::support::{Mc, World};

fn grant(name: &str) -> Grant {
    let unique = rand::random::<u64>();
    Grant {
        bucket: format!("{name}-{unique:016x}"),
        access_key: format!("AKIA{unique:016X}"),
        region: "us-east-1".to_owned(),
        owner: Owner { cluster: "test-cluster".to_owned(), object: format!("team/{name}"), uid: format!("uid-{unique}") },
    }
}

fn settings(world: &World) -> Settings {
    let MinioAccess { endpoint, root_user, root_password } = world.env.minio.clone().unwrap();
    Settings {
        public_endpoint: endpoint.parse().unwrap(),
        endpoint: endpoint.parse().unwrap(),
        region: "us-east-1".to_owned(),
        access_key: root_user,
        secret_key: root_password.into(),
        ca: Some(std::fs::read(world.env.pki.ca()).unwrap()),
        algorithm: Algorithm::default(),
    }
}

const NOTHING: Observation =
    Observation { bucket: BucketState::Missing, policy: PartState::Missing, user: PartState::Missing, key_works: false };
const DONE: Observation =
    Observation { bucket: BucketState::Owned, policy: PartState::Current, user: PartState::Current, key_works: true };

async fn provision(provider: &dyn Provider, grant: &Grant, key: &SecretKey) {
    provider.put_policy(grant).await.unwrap();
    provider.create_bucket(grant).await.unwrap();
    provider.mark_bucket(grant).await.unwrap();
    provider.put_user(grant, key).await.unwrap();
    provider.verify(grant, key).await.unwrap();
}

async fn delete(provider: &dyn Provider, grant: &Grant) {
    provider.delete_bucket(grant).await.unwrap();
    provider.delete_user(grant).await.unwrap();
    provider.delete_policy(grant).await.unwrap();
}

async fn contract(provider: &dyn Provider) {
    let (one, other) = (grant("one"), grant("other"));
    let (key, new_key) = (SecretKey::draw().unwrap(), SecretKey::draw().unwrap());
    let see = async |grant: &Grant, key: &SecretKey| provider.observe(grant, Some(key)).await.unwrap();

    assert_eq!(see(&one, &key).await, NOTHING);
    delete(provider, &one).await;

    // Each step shows, and twice is the same as once.
    for _ in 0..2 {
        provider.put_policy(&one).await.unwrap();
        assert_eq!(see(&one, &key).await, Observation { policy: PartState::Current, ..NOTHING });
    }
    for _ in 0..2 {
        provider.create_bucket(&one).await.unwrap();
        assert_eq!(see(&one, &key).await.bucket, BucketState::Unfinished);
    }
    for _ in 0..2 {
        provider.mark_bucket(&one).await.unwrap();
        assert_eq!(see(&one, &key).await.bucket, BucketState::Owned);
    }
    assert!(provider.verify(&one, &key).await.is_err(), "there is no user yet");
    for _ in 0..2 {
        provider.put_user(&one, &key).await.unwrap();
        provider.verify(&one, &key).await.unwrap();
        assert_eq!(see(&one, &key).await, DONE);
    }
    provision(provider, &one, &key).await;
    assert_eq!(see(&one, &key).await, DONE);
    assert!(!provider.observe(&one, None).await.unwrap().key_works);

    // Another grant is another matter.
    assert_eq!(see(&other, &key).await, NOTHING);
    provision(provider, &other, &new_key).await;
    assert!(!see(&other, &key).await.key_works);
    assert_eq!(see(&one, &key).await, DONE);

    // The same bucket under another owner is foreign.
    let mut stranger = one.clone();
    "uid-of-a-stranger".clone_into(&mut stranger.owner.uid);
    let seen = see(&stranger, &key).await;
    assert_eq!((seen.bucket, seen.policy), (BucketState::Foreign, PartState::Foreign));
    let _ = provider.delete_bucket(&stranger).await;
    provider.delete_policy(&stranger).await.unwrap();
    assert_eq!(see(&one, &key).await, DONE, "a stranger deletes nothing");

    // A new key takes the place of the old one.
    provider.put_user(&one, &new_key).await.unwrap();
    assert!(!see(&one, &key).await.key_works);
    provider.verify(&one, &new_key).await.unwrap();

    for _ in 0..2 {
        delete(provider, &one).await;
        assert_eq!(see(&one, &new_key).await, NOTHING);
    }
    assert_eq!(see(&other, &new_key).await, DONE);
    delete(provider, &other).await;
}

#[tokio::test]
async fn stub_keeps_the_contract() {
    contract(&Stub::new("http://stub-minio-platform.local:9000".parse().unwrap())).await;
}

#[tokio::test]
async fn minio_keeps_the_contract() {
    let world = World::new("contract").await;
    contract(&Minio::new(settings(&world)).unwrap()).await;
}

#[tokio::test]
async fn minio_keeps_the_contract_with_argon2() {
    let world = World::new("contract").await;
    contract(&Minio::new(Settings { algorithm: Algorithm::Argon2idAesGcm, ..settings(&world) }).unwrap()).await;
}

#[tokio::test]
async fn a_bucket_that_others_made_is_foreign_and_left_alone() {
    let (world, grant) = (World::new("foreign").await, grant("foreign"));
    let (provider, mc) = (Minio::new(settings(&world)).unwrap(), world.mc());
    mc.run(&["mb", &format!("s3/{}", grant.bucket)], "").await.unwrap();
    assert_eq!(provider.observe(&grant, None).await.unwrap().bucket, BucketState::Foreign);
    assert!(matches!(provider.delete_bucket(&grant).await, Err(Error::NotOwned(_))));
    assert!(mc.has_bucket(&grant.bucket).await);
}

#[tokio::test]
async fn a_bucket_that_holds_something_is_not_deleted() {
    let (world, grant, key) = (World::new("full").await, grant("full"), SecretKey::draw().unwrap());
    let (provider, mc) = (Minio::new(settings(&world)).unwrap(), world.mc());
    let bucket = format!("s3/{}", grant.bucket);
    provision(&provider, &grant, &key).await;
    mc.run(&["version", "enable", &bucket], "").await.unwrap();
    let expect = async |content: &str| {
        let error = provider.delete_bucket(&grant).await.unwrap_err();
        assert_eq!(error, Error::Conflict(format!("bucket {} holds {content}", grant.bucket)));
    };
    mc.put(&grant.bucket, "a", "1").await;
    mc.put(&grant.bucket, "a", "2").await;
    expect("2 object versions").await;
    mc.run(&["rm", &format!("{bucket}/a")], "").await.unwrap();
    expect("2 object versions and 1 delete markers").await;
    mc.run(&["rm", "--recursive", "--force", "--versions", &bucket], "").await.unwrap();
    provider.delete_bucket(&grant).await.unwrap();
    assert!(!mc.has_bucket(&grant.bucket).await);
}

#[tokio::test]
async fn tags_of_others_are_kept() {
    let (world, grant, key) = (World::new("tags").await, grant("tags"), SecretKey::draw().unwrap());
    let (provider, mc) = (Minio::new(settings(&world)).unwrap(), world.mc());
    provision(&provider, &grant, &key).await;
    mc.run(&["tag", "set", &format!("s3/{}", grant.bucket), "cost-centre=42"], "").await.unwrap();
    assert_eq!(provider.observe(&grant, None).await.unwrap().bucket, BucketState::Unfinished);
    provider.mark_bucket(&grant).await.unwrap();
    let tags = mc.tags(&grant.bucket).await;
    assert_eq!(tags["cost-centre"], "42");
    assert_eq!(tags["appbucket-operator/uid"], grant.owner.uid.as_str());
}

#[tokio::test]
async fn each_failure_is_of_its_class() {
    let world = World::new("classes").await;
    let fails = async |settings: Settings| Minio::new(settings).unwrap().observe(&grant("fails"), None).await.unwrap_err();

    let error = fails(Settings { secret_key: "not the admin's key".into(), ..settings(&world) }).await;
    assert!(matches!(&error, Error::Denied(text) if text.contains("SignatureDoesNotMatch")), "{error:?}");
    let error = fails(Settings { access_key: "nobody".into(), ..settings(&world) }).await;
    assert!(matches!(error, Error::Denied(_)), "{error:?}");
    let error = fails(Settings { endpoint: "https://127.0.0.1:1".parse().unwrap(), ..settings(&world) }).await;
    assert!(matches!(&error, Error::Unavailable(text) if text.contains("refused")), "{error:?}");
    let error = fails(Settings { ca: None, ..settings(&world) }).await;
    assert!(matches!(&error, Error::Unavailable(text) if text.to_lowercase().contains("certificate")), "{error:?}");
    assert!(Minio::new(Settings { ca: Some(b"no PEM".to_vec()), ..settings(&world) }).is_err());
}

#[tokio::test]
async fn another_region_than_the_servers_is_told() {
    let (world, key) = (World::new("region").await, SecretKey::draw().unwrap());
    let minio = world.own_minio(vec![("MINIO_SITE_REGION", "eu-1".to_owned())]).await;
    let MinioAccess { endpoint, root_user, root_password } = minio.access();
    let provider = Minio::new(Settings {
        endpoint: endpoint.parse().unwrap(),
        region: "eu-1".to_owned(),
        access_key: root_user,
        secret_key: root_password.into(),
        ..settings(&world)
    })
    .unwrap();
    provision(&provider, &Grant { region: "eu-1".to_owned(), ..grant("right") }, &key).await;
    let wrong = grant("wrong");
    provider.put_policy(&wrong).await.unwrap();
    provider.create_bucket(&wrong).await.unwrap();
    provider.put_user(&wrong, &key).await.unwrap();
    let error = provider.verify(&wrong, &key).await.unwrap_err();
    assert!(matches!(&error, Error::Invalid(text) if text.contains("is us-east-1 the server's region?")), "{error:?}");
}

#[tokio::test]
async fn a_key_that_opens_more_than_its_bucket_is_not_handed_out() {
    let (world, grant, key) = (World::new("wide").await, grant("wide"), SecretKey::draw().unwrap());
    let (provider, mc) = (Minio::new(settings(&world)).unwrap(), world.mc());
    provision(&provider, &grant, &key).await;
    mc.run(&["admin", "policy", "attach", "s3", "readwrite", "--user", &grant.access_key], "").await.unwrap();
    assert_eq!(provider.observe(&grant, Some(&key)).await.unwrap().user, PartState::Changed);
    provider.put_user(&grant, &key).await.unwrap();
    assert_eq!(provider.observe(&grant, Some(&key)).await.unwrap(), DONE);
    let own = Mc::administrator(
        &world,
        &MinioAccess {
            endpoint: world.env.minio.clone().unwrap().endpoint,
            root_user: grant.access_key.clone(),
            root_password: key.expose().to_owned(),
        },
    );
    assert_eq!(own.buckets().await, std::slice::from_ref(&grant.bucket), "an app sees no bucket but its own");
}
