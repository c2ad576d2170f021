//! `iceoryx2`: publish and subscribe by polling, the payload loaned and not copied.

use std::fs;
use std::hint::spin_loop;
use std::mem::MaybeUninit;

use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;

use crate::harness::Outcome;

type Topic = PortFactory<ipc::Service, [u8], ()>;

/// A topic in each direction. Both are made before the parties start: two that make one at the same moment can hang.
pub struct Topics {
    there: Topic,
    back: Topic,
    _node: Node<ipc::Service>,
}

impl Topics {
    pub fn open_or_create(name: &str) -> Outcome<Self> {
        set_log_level(LogLevel::Fatal);
        let mut config = Config::default();
        config.global.prefix = FileName::new(name.as_bytes())?;
        config
            .global
            .set_root_path(&Path::new(folder(name).as_bytes())?);
        let node = NodeBuilder::new()
            .config(&config)
            .create::<ipc::Service>()?;
        let topic = |direction: &str| -> Outcome<Topic> {
            let name = format!("{name}/{direction}").as_str().try_into()?;
            let builder = node.service_builder(&name).publish_subscribe::<[u8]>();
            let builder = builder
                .enable_safe_overflow(false)
                .subscriber_max_buffer_size(4);
            Ok(builder.open_or_create()?)
        };
        Ok(Self {
            there: topic("there")?,
            back: topic("back")?,
            _node: node,
        })
    }

    /// The end of who begins, or of who answers, for messages of so many bytes.
    pub fn end(&self, begins: bool, length: usize) -> Outcome<End> {
        let (out, back) = if begins {
            (&self.there, &self.back)
        } else {
            (&self.back, &self.there)
        };
        let outbox = out.publisher_builder().initial_max_slice_len(length);
        let outbox = outbox.backpressure_strategy(BackpressureStrategy::RetryUntilDelivered);
        Ok(End {
            outbox: outbox.create()?,
            inbox: back.subscriber_builder().create()?,
            length,
        })
    }
}

/// Where the files of these topics are kept.
fn folder(name: &str) -> String {
    format!("{}/{name}", std::env::temp_dir().display())
}

/// Removes, at its end, what the topics of this name leave in the file system.
pub struct Traces(pub String);

impl Drop for Traces {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(folder(&self.0));
        for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&self.0) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

pub struct End {
    outbox: Publisher<ipc::Service, [u8], ()>,
    inbox: Subscriber<ipc::Service, [u8], ()>,
    length: usize,
}

impl End {
    /// Sends a message that holds `value` in its first eight bytes; the rest is as it is.
    pub fn send(&self, value: u64) {
        let mut loaned = self.outbox.loan_slice_uninit(self.length).expect("a loan");
        let first = loaned.payload_mut()[..8]
            .iter_mut()
            .zip(value.to_ne_bytes());
        first.for_each(|(place, byte)| *place = MaybeUninit::new(byte));
        // SAFETY: bytes of shared memory hold some value; only the first eight are read.
        let whole = unsafe { loaned.assume_init() };
        whole.send().expect("it is delivered");
    }

    /// Spins until a message comes.
    pub fn receive(&self) -> u64 {
        loop {
            if let Some(message) = self.inbox.receive().expect("the topic is there") {
                let first = message.payload()[..8].try_into().expect("eight bytes");
                return u64::from_ne_bytes(first);
            }
            spin_loop();
        }
    }
}
