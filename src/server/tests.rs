//! The connection, against a real server.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use super::command::Command;
use super::fixture::{self, Cut, Data, Proxy, RedisServer};
use super::group::{Group, Retry, Settings};
use super::keys::{self, Tag};
use super::script::Script;
use super::url::Address;
use crate::error::{Error, ErrorKind};

fn quick() -> Settings {
    Settings {
        reply: Duration::from_millis(1500),
        patience: Duration::from_secs(5),
        ..Settings::default()
    }
}

fn join_at(url: &str, name: &str) -> Group {
    let address = Address::parse(url).unwrap();
    Group::join(&address, Tag::manager(name).unwrap(), quick()).unwrap()
}

fn incr(group: &Group, what: &str, retry: Retry) -> Result<i64, Error> {
    let command = Command::new("INCR").key(group.key(what));
    group.call(command, retry)?.int()
}

fn get(group: &Group, what: &str) -> Option<Vec<u8>> {
    let command = Command::new("GET").key(group.key(what));
    group
        .call(command, Retry::Safe)
        .unwrap()
        .maybe_bytes()
        .unwrap()
}

#[test]
fn an_address_is_shown_without_its_password() {
    for (given, shown) in [
        ("redis://localhost", "redis://localhost:6379/0"),
        ("redis://:secret@h:1/2", "redis://:***@h:1/2"),
        (
            "redis://me:secret@[::1]:7000",
            "redis://me:***@[::1]:7000/0",
        ),
        (
            "unix:///run/r.sock?db=3&user=me&pass=secret",
            "unix://me:***@/run/r.sock?db=3",
        ),
        ("redis+unix:///r.sock", "unix:///r.sock?db=0"),
    ] {
        let address = Address::parse(given).unwrap();
        assert_eq!(address.to_string(), shown);
        assert_eq!(format!("{address:?}"), shown);
        assert_eq!(address.secret(), given);
    }
    for wrong in [
        "",
        "secret",
        "http://me:secret@h",
        "redis://me:secret@h:port",
        "redis://me:secret@h/x",
    ] {
        let error = Address::parse(wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}

#[test]
fn names_that_could_mean_something_else_in_a_key_are_refused() {
    let longest = "x".repeat(keys::NAME_MAX);
    for name in ["a", "A-z_0.9", &longest] {
        let tag = Tag::manager(name).unwrap();
        assert_eq!(tag.key("o"), format!("mp1:{{m.{name}}}:o"));
    }
    let longer = "x".repeat(keys::NAME_MAX + 1);
    for name in ["", "a b", "a}", "{a", "a:b", "\u{e4}", &longer] {
        assert_eq!(
            Tag::manager(name).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        assert_eq!(
            Tag::pool(name, "b").unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
    }
}

#[test]
fn all_joins_of_a_group_in_a_process_are_one_and_see_what_was_made_first() {
    let server = RedisServer::start();
    let address = Address::parse(&server.url()).unwrap();
    let settings = |codec: &[u8]| Settings {
        meta: vec![("codec", codec.to_vec())],
        ..quick()
    };
    let tag = || Tag::pool("p", "12345678").unwrap();
    let first = Group::join(&address, tag(), settings(b"1")).unwrap();
    assert_eq!(incr(&first, "n", Retry::Never).unwrap(), 1);
    let again = Group::join(&address, tag(), settings(b"2")).unwrap();
    assert_eq!(again.meta("codec").unwrap(), b"1");
    drop((first, again));
    let later = Group::join(&address, tag(), settings(b"3")).unwrap();
    assert_eq!(later.meta("codec").unwrap(), b"1");
    assert_eq!(get(&later, "n").unwrap(), b"1");
    let left: u64 = server.cli(["PTTL", &later.key("meta")]).parse().unwrap();
    assert!(left > 3_500_000, "{left}");

    let mut other = quick();
    other.lifetime = None;
    let tag = Tag::manager("for-good").unwrap();
    let group = Group::join(&address, tag, other).unwrap();
    assert_eq!(server.cli(["PTTL", &group.key("meta")]), "-1");
}

#[test]
fn a_group_of_another_protocol_is_refused() {
    let server = RedisServer::start();
    server.cli(["HSET", "mp1:{m.old}:meta", "proto", "7", "epoch", "x"]);
    let address = Address::parse(&server.url()).unwrap();
    let refused = Group::join(&address, Tag::manager("old").unwrap(), quick()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Protocol);
    assert!(refused.to_string().contains('7'), "{refused}");
}

#[test]
fn a_request_that_never_arrived_is_sent_again() {
    let server = RedisServer::start();
    let proxy = Proxy::start(&server);
    let group = join_at(&proxy.url(), "m");
    incr(&group, "n", Retry::Never).unwrap();
    // the first of two connections dies in silence: asking first shows it, before what must not be done twice
    proxy.cut(Cut::AfterReply, "INCR");
    assert_eq!(incr(&group, "n", Retry::Never).unwrap(), 2);
    assert_eq!(proxy.cuts(), 1);
    fixture::pass(Duration::from_millis(1100));
    assert_eq!(incr(&group, "n", Retry::Never).unwrap(), 3);
}

#[test]
fn a_reply_that_was_lost_is_asked_for_again_or_reported() {
    let server = RedisServer::start();
    let proxy = Proxy::start(&server);
    let group = join_at(&proxy.url(), "m");
    for (cut, kept) in [(Cut::Request, "0"), (Cut::BeforeReply, "1")] {
        server.cli(["SET", &group.key("n"), "0"]);
        proxy.cut(cut, "INCR");
        let broken = incr(&group, "n", Retry::Never).unwrap_err();
        assert_eq!(broken.kind(), ErrorKind::Disconnected);
        assert_eq!(broken.maybe_applied(), Some(true), "{broken}");
        assert!(
            broken.to_string().contains("INCR mp1:{m.m}:n at unix://"),
            "{broken}"
        );
        assert_eq!(get(&group, "n").unwrap(), kept.as_bytes());

        server.cli(["SET", &group.key("n"), "0"]);
        proxy.cut(cut, "GET");
        assert_eq!(get(&group, "n").unwrap(), b"0");
    }
    assert_eq!(proxy.cuts(), 4);
}

#[test]
fn a_server_that_is_not_there_is_waited_for_and_then_given_up() {
    let mut server = RedisServer::with_log();
    let mut settings = quick();
    let group = join_at(&server.url(), "m");
    incr(&group, "n", Retry::Never).unwrap();
    server.kill();
    let (first, second) = (group.clone(), group.clone());
    let waiting = std::thread::spawn(move || get(&first, "n"));
    server.restart(Data::Keep);
    assert_eq!(waiting.join().unwrap().unwrap(), b"1");
    assert_eq!(get(&second, "n").unwrap(), b"1");

    settings.patience = Duration::from_millis(200);
    let address = Address::parse(&server.url()).unwrap();
    let impatient = Group::join(&address, Tag::manager("other").unwrap(), settings).unwrap();
    server.kill();
    let command = Command::new("GET").key("n");
    let gone = impatient.call(command, Retry::Safe).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Disconnected);
    let gone = incr(&impatient, "n", Retry::Never).unwrap_err();
    assert_eq!(gone.maybe_applied(), Some(false), "{gone}");
}

#[test]
fn a_server_that_came_back_without_its_data_is_noticed_for_good() {
    let mut server = RedisServer::start();
    let group = join_at(&server.url(), "m");
    incr(&group, "n", Retry::Never).unwrap();
    server.restart(Data::Empty);
    for _ in 0..2 {
        let lost = group.call(Command::new("GET").key(group.key("n")), Retry::Safe);
        assert_eq!(lost.unwrap_err().kind(), ErrorKind::StateLost);
        let lost = incr(&group, "n", Retry::Never).unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::StateLost);
    }
    group.rejoin().unwrap();
    assert_eq!(incr(&group, "n", Retry::Never).unwrap(), 1);
}

#[test]
fn a_stopped_server_is_waited_for_no_longer_than_was_said() {
    let server = RedisServer::start();
    let group = join_at(&server.url(), "m");
    incr(&group, "n", Retry::Never).unwrap();
    server.stop();
    let before = Instant::now();
    let late = group
        .call(Command::new("GET").key(group.key("n")), Retry::Safe)
        .unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Disconnected);
    assert!(before.elapsed() >= Duration::from_millis(1500));
    server.cont();
    assert_eq!(get(&group, "n").unwrap(), b"1");
}

#[test]
fn who_blocks_holds_up_nobody_and_is_not_late() {
    let server = RedisServer::start();
    let group = join_at(&server.url(), "m");
    let blocked = group.clone();
    let popping = std::thread::spawn(move || {
        let command = Command::new("BLPOP").key(blocked.key("l")).int(3);
        let reply = blocked.block(command, Duration::from_secs(3), Retry::Safe);
        reply.unwrap().maybe_array().unwrap()
    });
    while server.cli(["CLIENT", "LIST"]).matches("cmd=blpop").count() == 0 {}
    assert_eq!(incr(&group, "n", Retry::Never).unwrap(), 1);
    // later than a reply may take
    fixture::pass(Duration::from_millis(1700));
    server.cli(["RPUSH", &group.key("l"), "x"]);
    assert_eq!(popping.join().unwrap().unwrap().len(), 2);
}

static ADD: Script = Script::new(
    "add",
    "#!lua flags=allow-oom
redis.call('RPUSH', KEYS[1], ARGV[1])
return redis.call('LLEN', KEYS[1])",
);

#[test]
fn a_script_that_the_server_has_forgotten_is_sent_again() {
    let server = RedisServer::start();
    let group = join_at(&server.url(), "m");
    let add = |item: &str| {
        let call = ADD.call(&[group.key("l")]).arg(item);
        group.run(&ADD, call, Retry::Never).unwrap().int().unwrap()
    };
    assert_eq!((add("a"), add("b")), (1, 2));
    server.cli(["SCRIPT", "FLUSH"]);
    assert_eq!((add("c"), add("d")), (3, 4));
    assert_eq!(
        server.cli(["LRANGE", &group.key("l"), "0", "-1"]),
        "a\nb\nc\nd"
    );
    assert!(ADD.source().starts_with("#!lua"));
}

#[test]
fn a_pipeline_is_answered_one_by_one() {
    let server = RedisServer::start();
    let group = join_at(&server.url(), "m");
    server.cli(["SET", &group.key("text"), "x"]);
    let commands = ["n", "text", "n"].map(|what| Command::new("INCR").key(group.key(what)));
    let replies = group.pipeline(commands.to_vec(), Retry::Never).unwrap();
    let replies: Vec<_> = replies
        .into_iter()
        .map(|reply| reply.and_then(super::reply::Reply::int))
        .collect();
    assert_eq!(
        (replies[0].as_ref().unwrap(), replies[2].as_ref().unwrap()),
        (&1, &2)
    );
    assert_eq!(
        replies[1].as_ref().unwrap_err().kind(),
        ErrorKind::Corrupted
    );
    assert!(group.pipeline(Vec::new(), Retry::Never).unwrap().is_empty());
}

#[test]
fn a_full_server_says_so_and_scripts_that_free_something_go_on() {
    let server = RedisServer::start();
    let group = join_at(&server.url(), "m");
    server.cli(["CONFIG", "SET", "maxmemory", "1"]);
    let full = incr(&group, "n", Retry::Never).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::OutOfMemory);
    let call = ADD.call(&[group.key("l")]).arg("x");
    assert_eq!(
        group.run(&ADD, call, Retry::Never).unwrap().int().unwrap(),
        1
    );
    server.cli(["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let address = Address::parse(&server.url()).unwrap();
    let evicts = Group::join(&address, Tag::manager("b").unwrap(), quick()).unwrap_err();
    assert!(evicts.to_string().contains("allkeys-lru"), "{evicts}");
}

#[test]
fn passwords_open_and_never_show() {
    let server = RedisServer::start();
    server.cli([
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">secret",
        "~mp1:*",
        "+@all",
        "-@dangerous",
    ]);
    server.cli(["CONFIG", "SET", "requirepass", "secret"]);
    let at = |query: &str| {
        let address = Address::parse(&format!("{}?{query}", server.url())).unwrap();
        Group::join(&address, Tag::manager("m").unwrap(), quick())
    };
    for wrong in ["", "pass=secret2", "user=app&pass=secret2"] {
        let refused = at(wrong).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");
        assert!(!format!("{refused:?}").contains("secret"), "{refused:?}");
    }
    assert_eq!(
        incr(&at("pass=secret").unwrap(), "n", Retry::Never).unwrap(),
        1
    );
    let limited = at("user=app&pass=secret").unwrap();
    assert_eq!(incr(&limited, "n", Retry::Never).unwrap(), 2);
    let refused = limited.call(Command::new("GET").key("other"), Retry::Safe);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
}

#[test]
fn a_renewal_goes_on_until_it_is_dropped() {
    let server = RedisServer::start();
    let group = join_at(&server.url(), "m");
    let (send, receive) = mpsc::channel();
    let send = Arc::new(Mutex::new(send));
    let beat = |every| {
        let send = Arc::clone(&send);
        let renew = move |group: &Group| {
            let count = incr(group, "beats", Retry::Never).unwrap();
            send.lock().unwrap().send(count).unwrap();
        };
        group.heart().beat(&group, every, renew).unwrap()
    };
    for round in 0..2 {
        let slow = beat(Duration::from_secs(3600));
        let quick = beat(Duration::from_millis(10));
        for _ in 0..3 {
            receive.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        drop((slow, quick));
        let count = Arc::strong_count(&send);
        assert!(count <= 2, "round {round}: {count}");
        while Arc::strong_count(&send) > 1 {
            std::thread::yield_now();
        }
        while receive.try_recv().is_ok() {}
    }
}
