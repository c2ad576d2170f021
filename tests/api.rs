//! The public face as it was promised: each line is written as a user would write it. Mostly this has to compile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use multiproc::{
    Array, ArrayGuard, AsyncResult, Builder, Error, ErrorKind, FrozenArray, LockError, Pod, Pool,
    Process, Queue, Value, ValueGuard, Zeroable,
};

fn square(x: u64) -> u64 {
    x * x
}

fn name(what: &str) -> String {
    format!("mp-api-{}-{what}", std::process::id())
}

#[test]
fn shared_state_by_name_and_without() -> multiproc::Result<()> {
    let hits = Value::create(&name("hits"), 0u64)?;
    let same = Value::<u64>::open(&name("hits"))?;
    let or = Value::open_or_create(&name("hits"), || 0u64)?;
    let total = Value::new(0.0f64)?;
    *total.lock()? += 1.5;
    assert_eq!(
        Value::create(&name("hits"), 0u64).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(
        Value::<u64>::open(&name("none")).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let mismatch = Value::<f32>::open(&name("hits")).unwrap_err();
    assert!(matches!(mismatch.kind(), ErrorKind::TypeMismatch));
    let (expected, found) = mismatch.mismatch().unwrap();
    assert_ne!(expected, found);

    *hits.lock()? += 1;
    let before: u64 = hits.update(|v| {
        *v += 1;
        *v - 1
    })?;
    assert_eq!(before, 1);
    let n: u64 = same.get()?;
    assert_eq!(n, 2);
    or.set(7)?;
    {
        let guard: ValueGuard<'_, u64> = hits.try_lock()?;
        assert_eq!(*guard, 7);
    }
    drop(hits.lock_timeout(Duration::from_millis(50))?);
    Ok(())
}

#[test]
fn arrays() -> multiproc::Result<()> {
    let a = Array::<f64>::new(1_000)?;
    let b = Array::from_slice(&[1i32, 2, 3])?;
    let c = Array::<f64>::create(&name("prices"), 1024)?;
    let d = Array::<f64>::open(&name("prices"))?;
    c.set(0, 2.5)?;
    assert_eq!(d.get(0)?.to_bits(), 2.5f64.to_bits());
    a.lock()?[0] = 5.0;
    a.get(3)?;
    a.set(3, 1.5)?;
    assert_eq!(a.to_vec()?.len(), a.len());
    assert_eq!(a.get(1_000).unwrap_err().kind(), ErrorKind::OutOfBounds);
    {
        let guard: ArrayGuard<'_, i32> = b.lock()?;
        assert_eq!(guard.iter().sum::<i32>(), 6);
    }
    let frozen: FrozenArray<f64> = a.freeze()?;
    assert_eq!(frozen.len(), 1_000);
    assert_eq!(frozen[3].to_bits(), 1.5f64.to_bits());
    assert_eq!(a.lock().unwrap_err().kind(), ErrorKind::Frozen);
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[bytemuck(crate = "multiproc::bytemuck")]
#[repr(C)]
struct Point {
    x: f32,
    y: f32,
}

#[test]
fn a_struct_of_the_user_and_what_the_guards_say() {
    let point = Value::new(Point { x: 1.0, y: 2.0 }).unwrap();
    point.lock().unwrap().x = 3.0;
    assert_eq!(point.get().unwrap(), Point { x: 3.0, y: 2.0 });
    let guard = point.lock().unwrap();
    match point.lock() {
        Err(LockError::OwnerDied(guard)) => drop(guard.recover()),
        Err(other) => assert_eq!(Error::from(other).kind(), ErrorKind::Deadlock),
        Ok(_) => unreachable!("it is locked"),
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(
                Error::from(point.try_lock().unwrap_err()).kind(),
                ErrorKind::WouldBlock
            );
            let late = point.lock_timeout(Duration::from_millis(1)).unwrap_err();
            assert_eq!(Error::from(late).kind(), ErrorKind::Timeout);
        });
    });
    drop(guard);
}

#[test]
fn the_pool() -> multiproc::Result<()> {
    fn takes_any_pool(pool: &Pool) -> multiproc::Result<u64> {
        pool.apply(square, 3)
    }
    fn is_shared<T: Send + Sync>(_: &T) {}

    let pool = Pool::with_workers(2)?;
    is_shared(&pool);
    let squares: Vec<u64> = pool.map(square, 1..=10)?;
    let sums = pool.map(|(a, b): (u64, u64)| a + b, [(1, 2), (3, 4)])?;
    let one = pool.apply(square, 12)?;
    assert_eq!(
        (squares[9], sums[1], one, takes_any_pool(&pool)?),
        (100, 7, 144, 9)
    );

    let task = pool.apply_async(square, 7)?;
    is_shared(&task);
    task.ready();
    task.wait();
    assert!(task.wait_timeout(Duration::from_secs(1)));
    assert_eq!(task.get_timeout(Duration::from_secs(1))?, 49);
    let v = task.get()?;
    let all: AsyncResult<Vec<u64>> = pool.map_async(square, 0..100)?;
    all.wait();
    assert_eq!((v, all.successful()), (49, Some(true)));
    assert!(!all.cancel());
    all.on_done(|r: &multiproc::Result<Vec<u64>>| assert!(r.is_ok()));

    for r in pool.imap(square, 0..).take(10) {
        r?;
    }
    for r in pool.chunk_size(20).imap_unordered(square, 0..100) {
        r?;
    }
    let iterator = pool.chunk_size(3).imap(square, vec![1, 2, 3]); // the view need not outlive the line
    assert_eq!(iterator.count(), 3);
    let factor = 3;
    assert_eq!(
        pool.map_with(&factor, |factor, x: u64| factor * x, [1, 2])?,
        [3, 6]
    );
    pool.close();
    pool.join()?;
    pool.terminate();
    Ok(())
}

#[test]
fn functions_of_all_shapes_need_no_annotation() -> multiproc::Result<()> {
    struct Shape;
    impl Shape {
        fn area(side: u32) -> u32 {
            side * side
        }
    }
    fn same<T>(x: T) -> T {
        x
    }
    let pool = Pool::with_workers(1)?;
    assert_eq!(pool.map(|x| x + 1, [1_u8])?, [2]);
    assert_eq!(pool.map(Shape::area, [3])?, [9]);
    assert_eq!(pool.map(u64::count_ones, [7])?, [3]);
    assert_eq!(pool.map(Some, [1_u8])?, [Some(1)]);
    assert_eq!(pool.map(same, ["a".to_owned()])?, ["a"]);
    assert_eq!(
        pool.map(|s: String| s.len(), ["a".into(), "bc".into()])?,
        [1, 2]
    );
    Ok(())
}

#[test]
fn the_builder() -> multiproc::Result<()> {
    struct Db {
        connection: u32,
    }
    let builder: Builder = Pool::builder();
    let pool: Pool<Db> = builder
        .workers(1)
        .max_tasks_per_worker(1000)
        .queue_depth(100)
        .retries(1)
        .task_timeout(Duration::from_secs(60))
        .name("db")
        .init(
            |url: String| Db {
                connection: url.len() as u32,
            },
            "db://x".to_string(),
        )
        .build()?;
    assert_eq!(
        pool.map_state(|db: &mut Db, id: u32| db.connection + id, 0..3)?,
        [6, 7, 8]
    );
    assert_eq!(
        pool.chunk_size(2)
            .map_state(|db, id: u32| db.connection + id, 0..3)?,
        [6, 7, 8]
    );
    let task = pool.try_apply_async(square, 4)?;
    assert_eq!(task.get()?, 16);
    Ok(())
}

#[test]
fn processes() -> multiproc::Result<()> {
    fn is_shared<T: Send + Sync>(_: &T) {}
    let p: Process<u64> = Process::spawn(square, 7)?;
    is_shared(&p);
    let _: u32 = p.pid();
    let _: bool = p.is_alive();
    let v: u64 = p.join()?;
    assert_eq!(v, 49);
    let again: u64 = p.join_timeout(Duration::from_secs(1))?;
    assert_eq!(again, 49);
    let status: Option<std::process::ExitStatus> = p.exit_status();
    assert!(status.unwrap().success());
    p.terminate()?;
    p.kill()?;
    let others = [Process::spawn(square, 1)?, Process::spawn(square, 2)?];
    let ended: Option<usize> = multiproc::wait_any(&others, Duration::from_secs(60))?;
    others[ended.unwrap()].join()?;
    multiproc::wait_any(&[&others[0], &others[1]], None)?;
    std::os::fd::AsFd::as_fd(&others[0]);
    let [one, two] = others;
    one.detach()?;
    two.join().map(drop)
}

#[test]
fn queues() -> multiproc::Result<()> {
    let q = Queue::<String>::new(4)?;
    q.put(&"one".into())?;
    q.put_timeout(&"two".into(), Duration::from_millis(50))?;
    q.try_put(&"three".to_owned())?;
    assert_eq!((q.len(), q.capacity()), (3, 4));
    assert!(!q.is_empty() && !q.is_full());
    let one: String = q.get()?;
    let two = q.get_timeout(Duration::from_millis(50))?;
    let three: Option<String> = q.try_get()?;
    assert_eq!(
        (&*one, &*two, three.as_deref()),
        ("one", "two", Some("three"))
    );
    for _ in 0..3 {
        q.task_done()?;
    }
    q.join()?;
    q.join_timeout(Duration::from_millis(50))?;
    q.close()?;
    assert!(q.is_closed());
    assert_eq!(q.put(&one).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(q.get().unwrap_err().kind(), ErrorKind::Closed);
    for message in &q {
        drop::<String>(message?);
    }

    let made = Queue::<(u32, Vec<f64>)>::create(&name("jobs"), 8)?;
    let same = Queue::<(u32, Vec<f64>)>::open(&name("jobs"))?;
    let or = Queue::<(u32, Vec<f64>)>::open_or_create(&name("jobs"), 8)?;
    made.put(&(1, vec![0.5]))?;
    or.put(&(2, vec![]))?;
    assert_eq!(same.get()?, (1, vec![0.5]));
    same.lease()?.ack()?;

    let bytes = Queue::<Vec<u8>>::builder(8).max_bytes(1 << 20).build()?;
    let mut loan = bytes.loan(1000)?;
    loan.fill(7);
    loan.send()?;
    let received = bytes.recv()?;
    assert_eq!(&received[..], &[7; 1000]);
    Ok(())
}

#[cfg(feature = "manager")]
#[test]
fn a_manager_and_its_objects() -> multiproc::Result<()> {
    use multiproc::{Manager, manager};

    #[derive(Clone, serde::Serialize, serde::Deserialize)]
    struct Shared {
        scores: manager::Dict<String, u64>,
        log: manager::List<String>,
        best: manager::Value<f64>,
        cells: manager::Array<i32>,
        jobs: manager::Queue<String>,
        door: manager::Lock,
    }

    let folder = std::env::temp_dir().join(name("manager"));
    for m in [Manager::new()?, Manager::at(&folder)?] {
        let d = m.dict::<String, u64>("scores")?;
        d.insert("ann".into(), 1)?;
        assert_eq!(d.get("ann")?, Some(1));
        d.update("ann", |v| Some(v.unwrap_or(0) + 1))?;
        let snapshot: Vec<(String, u64)> = d.snapshot()?;
        assert_eq!((d.len()?, snapshot), (1, vec![("ann".to_owned(), 2)]));
        assert_eq!(d.remove("ann")?, Some(2));
        let l = m.list::<String>("log")?;
        l.push("hi".into())?;
        assert_eq!(l.get(0)?.as_deref(), Some("hi"));
        assert_eq!((l.to_vec()?.len(), l.len()?), (1, 1));
        assert_eq!(l.pop()?.as_deref(), Some("hi"));
        let best = m.value("x", 0.0f64)?;
        best.set(3.5)?;
        assert!(best.get()? > 3.0);
        let a = m.array("a", &[0i32; 10])?;
        a.set(0, 5)?;
        assert_eq!(a.to_vec()?[..2], [5, 0]);
        let jobs = m.queue::<String>("jobs")?;
        jobs.put(&"one".into())?;
        assert_eq!(jobs.get()?, "one");
        let door = m.lock("door")?;
        {
            let _guard = door.lock()?;
        }
        let shared = Shared {
            scores: d,
            log: l,
            best,
            cells: a,
            jobs,
            door,
        };
        let pool = Pool::with_workers(1)?;
        let change = |shared: Shared| -> multiproc::Result<()> {
            let _guard = shared.door.lock()?;
            shared.scores.insert("bob".into(), 7)?;
            shared.log.push("from a task".into())?;
            shared.best.set(0.5)?;
            shared.cells.set(9, 9)?;
            shared.jobs.put(&"two".into())
        };
        pool.apply(change, shared.clone())??;
        assert_eq!(shared.scores.get("bob")?, Some(7));
        assert_eq!((shared.best.get()?, shared.cells.get(9)?), (0.5, 9));
        assert_eq!((shared.log.len()?, shared.jobs.get()?), (1, "two".into()));
    }
    std::fs::remove_dir_all(folder).unwrap();
    Ok(())
}
