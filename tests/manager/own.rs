//! What the engine of one machine has of its own.

use multiproc::{ErrorKind, Manager};

use crate::{kind, local};

#[test]
fn a_call_inside_of_a_change_is_an_error_and_no_hang() {
    let manager = local();
    let dict = manager.new_dict::<u8, u8>().unwrap();
    let mut inner = None;
    dict.update(&1, |_| {
        inner = kind(dict.len());
        Some(1)
    })
    .unwrap();
    assert_eq!(inner, Some(ErrorKind::Deadlock));
    let inner = manager.batch(|_| Ok(kind(dict.insert(1, 2)))).unwrap();
    assert_eq!(inner, Some(ErrorKind::Deadlock));
    assert_eq!(dict.get(&1).unwrap(), Some(1));
}

#[test]
fn what_a_manager_in_a_directory_holds_is_there_the_next_time() {
    let directory = std::env::temp_dir().join(format!("mp-manager-{}", std::process::id()));
    {
        let manager = Manager::at(&directory).unwrap();
        manager
            .dict::<String, u64>("scores")
            .unwrap()
            .insert("ann".into(), 7)
            .unwrap();
        manager.list::<u8>("log").unwrap().extend([1, 2]).unwrap();
        drop(manager.lock("door").unwrap().lock().unwrap());
    }
    let manager = Manager::at(&directory).unwrap();
    assert_eq!(
        manager
            .dict::<String, u64>("scores")
            .unwrap()
            .get("ann")
            .unwrap(),
        Some(7)
    );
    assert_eq!(manager.list::<u8>("log").unwrap().pop().unwrap(), Some(2));
    assert_eq!(manager.names().unwrap().len(), 3);
    drop(manager.lock("door").unwrap().lock().unwrap());
    drop(manager);
    std::fs::remove_dir_all(&directory).unwrap();
}
