//! Handles in tasks, in processes, and in objects.

use multiproc::manager::{
    Array, Barrier, Condition, Counter, Dict, Event, List, Lock, Namespace, Queue, RLock,
    Semaphore, Set, Value,
};
use multiproc::{ErrorKind, Manager, Pool, Process};
use serde::{Deserialize, Serialize};

use crate::kind;

type Everything = (
    (
        Dict<String, u64>,
        List<String>,
        Set<u8>,
        Namespace,
        Value<f64>,
        Counter,
        Array<i32>,
    ),
    (
        Queue<String>,
        Lock,
        RLock,
        Semaphore,
        Event,
        Condition,
        Barrier,
    ),
);

fn change_everything(
    ((dict, list, set, namespace, value, counter, array), sync): Everything,
) -> multiproc::Result<()> {
    let (queue, lock, rlock, semaphore, event, condition, barrier) = sync;
    dict.update("n", |n| Some(n.unwrap_or(0) + 1))?;
    list.push("from another process".into())?;
    set.insert(7)?;
    namespace.set("pid", &std::process::id())?;
    value.set(2.5)?;
    counter.add(3)?;
    array.set(2, 9)?;
    queue.put(&"hello".into())?;
    drop(lock.lock()?);
    drop(rlock.lock()?);
    semaphore.release()?;
    event.set()?;
    drop(condition.lock()?);
    condition.notify_all()?;
    barrier.wait()?;
    Ok(())
}

on_each_engine! {
    fn what_another_process_changes_is_seen_here(manager) {
        let everything: Everything = (
            (
                manager.dict("dict").unwrap(),
                manager.new_list().unwrap(),
                manager.new_set().unwrap(),
                manager.new_namespace().unwrap(),
                manager.value("value", 0.0).unwrap(),
                manager.new_counter().unwrap(),
                manager.new_array(&[0; 3]).unwrap(),
            ),
            (
                manager.new_queue().unwrap(),
                manager.new_lock().unwrap(),
                manager.new_rlock().unwrap(),
                manager.new_semaphore(0).unwrap(),
                manager.new_event().unwrap(),
                manager.new_condition().unwrap(),
                manager.new_barrier(1).unwrap(),
            ),
        );
        let pool = Pool::with_workers(1).unwrap();
        pool.apply(change_everything, everything.clone()).unwrap().unwrap();
        Process::spawn(change_everything, everything.clone()).unwrap().join().unwrap().unwrap();
        let ((dict, list, set, namespace, value, counter, array), sync) = everything;
        assert_eq!(dict.get("n").unwrap(), Some(2));
        assert_eq!(list.to_vec().unwrap(), ["from another process"; 2]);
        assert_eq!(set.snapshot().unwrap(), [7]);
        assert_ne!(namespace.get::<u32>("pid").unwrap(), Some(std::process::id()));
        assert_eq!((value.get().unwrap(), counter.get().unwrap()), (2.5, 6));
        assert_eq!(array.to_vec().unwrap(), [0, 0, 9]);
        let (queue, _, _, semaphore, event, _, _) = sync;
        assert_eq!((queue.get().unwrap(), queue.get().unwrap()), ("hello".into(), "hello".into()));
        assert_eq!(semaphore.available().unwrap(), 2);
        assert!(event.is_set().unwrap());
    }

    /// CPython: `_TestContainers.list_proxy_in_list`, `dict_proxy_nested`, `nested_queue`.
    fn a_handle_in_an_object_is_live(manager) {
        let outer = manager.new_dict::<String, List<u32>>().unwrap();
        let inner = manager.new_list::<u32>().unwrap();
        outer.insert("a".into(), inner.clone()).unwrap();
        outer.get("a").unwrap().unwrap().push(1).unwrap();
        inner.push(2).unwrap();
        assert_eq!(outer.get("a").unwrap().unwrap().to_vec().unwrap(), [1, 2]);
        outer.delete().unwrap();
        assert_eq!(inner.len().unwrap(), 2);

        let queues = manager.new_list::<Queue<String>>().unwrap();
        queues.push(manager.new_queue().unwrap()).unwrap();
        queues.get(0).unwrap().unwrap().put(&"x".into()).unwrap();
        assert_eq!(queues.get(0).unwrap().unwrap().get().unwrap(), "x");

        let managers = manager.new_list::<Manager>().unwrap();
        managers.push(manager.clone()).unwrap();
        managers.pop().unwrap().unwrap().counter("c").unwrap().add(1).unwrap();
        assert_eq!(manager.counter("c").unwrap().get().unwrap(), 1);
    }

    /// CPython: `_TestContainers.list_proxy_in_list`.
    fn a_write_through_one_of_several_inner_lists_touches_that_alone(manager) {
        let outer = manager.new_list::<List<u32>>().unwrap();
        for _ in 0..3 {
            let inner = manager.new_list().unwrap();
            inner.extend([0, 1]).unwrap();
            outer.push(inner).unwrap();
        }
        outer.get(1).unwrap().unwrap().push(55).unwrap();
        let all: Vec<_> = outer.to_vec().unwrap().iter().map(|inner| inner.to_vec().unwrap()).collect();
        assert_eq!(all, [vec![0, 1], vec![0, 1, 55], vec![0, 1]]);
    }

    /// CPython: `_TestContainers.list_proxy_in_list`.
    fn a_list_that_contains_itself_can_be_deleted(manager) {
        #[derive(Serialize, Deserialize)]
        struct Node(List<Node>);
        let list = manager.new_list::<Node>().unwrap();
        list.push(Node(list.clone())).unwrap();
        assert_eq!(list.get(0).unwrap().unwrap().0.len().unwrap(), 1);
        assert!(list.delete().unwrap());
    }

    fn a_thing_in_shared_memory_cannot_be_put_into_an_object(manager) {
        let list = manager.new_list::<multiproc::Value<u8>>().unwrap();
        let refused = list.push(multiproc::Value::new(1).unwrap());
        assert_eq!(kind(refused), Some(ErrorKind::Encode));
        assert!(list.is_empty().unwrap());
    }

    fn updates_by_many_processes_all_count(manager) {
        let dict = manager.new_dict::<String, u64>().unwrap();
        let pool = Pool::with_workers(3).unwrap();
        let add = |dict: &Dict<String, u64>, key: String| {
            dict.update(&key, |n| Some(n.unwrap_or(0) + 1)).map(drop)
        };
        let keys = (0..300).map(|n| format!("k{}", n % 3));
        for added in pool.map_with(&dict, add, keys).unwrap() {
            added.unwrap();
        }
        assert_eq!(dict.values().unwrap(), [100; 3]);
    }
}
