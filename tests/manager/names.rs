//! How objects are found, and removed.

use multiproc::ErrorKind;

use crate::kind;

on_each_engine! {
    fn a_name_leads_to_the_same_object(manager) {
        let one = manager.dict::<String, u64>("scores").unwrap();
        let other = manager.clone().dict::<String, u64>("scores").unwrap();
        one.insert("ann".into(), 1).unwrap();
        assert_eq!(other.get("ann").unwrap(), Some(1));
        let nameless = [manager.new_list::<u8>().unwrap(), manager.new_list::<u8>().unwrap()];
        nameless[0].push(1).unwrap();
        assert!(nameless[1].is_empty().unwrap());
    }

    fn a_name_stands_for_one_kind_and_type(manager) {
        manager.dict::<String, u64>("x").unwrap();
        let error = manager.list::<u64>("x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TypeMismatch);
        assert_eq!(error.mismatch(), Some(("a list of u64", "a dict of String, u64")));
        assert!(error.to_string().contains("\"x\""), "{error}");
        assert_eq!(kind(manager.dict::<String, u32>("x")), Some(ErrorKind::TypeMismatch));
        assert_eq!(kind(manager.lock("x")), Some(ErrorKind::TypeMismatch));
        manager.dict::<String, u64>("x").unwrap();
    }

    fn names_that_cannot_be_are_refused(manager) {
        for name in ["", "a b", "a/b", "{x}", &"x".repeat(65)] {
            assert_eq!(kind(manager.counter(name)), Some(ErrorKind::InvalidInput), "{name:?}");
        }
        manager.counter(&"x".repeat(64)).unwrap();
    }

    fn all_names_are_listed_and_what_they_stand_for(manager) {
        manager.dict::<u8, u8>("a").unwrap();
        manager.event("b").unwrap();
        manager.new_list::<u8>().unwrap();
        let mut names = manager.names().unwrap();
        names.sort_unstable();
        assert_eq!(names, [("a".into(), "dict"), ("b".into(), "event")]);
    }

    fn what_was_deleted_is_gone_and_its_name_free(manager) {
        let list = manager.list::<u32>("x").unwrap();
        list.extend([1, 2]).unwrap();
        let again = list.clone();
        assert!(list.delete().unwrap());
        assert!(again.len().is_err_and(|error| error.kind() == ErrorKind::Gone) || again.is_empty().unwrap());
        assert!(!again.delete().unwrap());
        assert!(manager.names().unwrap().is_empty());
        let dict = manager.dict::<String, u8>("x").unwrap();
        assert!(dict.is_empty().unwrap());
    }
}
