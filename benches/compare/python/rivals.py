"""One case of the comparison in Python 3: `rivals.py CASE [ARGUMENT..]`.

For each line on its input it does the work once and answers `value [name=value ..]`; `absent: reason` where something is not installed.
A case is a generator: what stands before its first `yield` is set-up and not measured.
"""
import concurrent.futures
import hashlib
import importlib
import multiprocessing as mp
import os
import sys
import time

clock = time.perf_counter


class Absent(Exception):
    pass


def library(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        raise Absent(f"{name} is not installed for {sys.executable}") from None


# What workers do.


def same(x):
    return x


def square(x):
    return x * x


def microsecond(x):
    end = clock() + 1e-6
    while clock() < end:
        pass
    return x


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha512(file.read()).digest()


def add_until(value, core, gate, seconds, counts):
    os.sched_setaffinity(0, {core})
    gate.wait()
    count, end = 0, clock() + seconds
    while clock() < end:
        for _ in range(100):
            with value.get_lock():
                value.value += 1
        count += 100
    counts.put(count)


# How it is measured.


def checked(found, expected):
    if found != expected:
        raise SystemExit(f"wrong result: {found!r} instead of {expected!r}")


def each(calls, call, pause=0.0):
    """The median time of a call in microseconds, and the time that one in a hundred exceeds."""
    times = []
    for _ in range(calls):
        if pause:
            time.sleep(pause)
        start = clock()
        call()
        times.append(clock() - start)
    times.sort()
    return times[len(times) // 2] * 1e6, {"p99": times[len(times) * 99 // 100] * 1e6}


def seconds(work):
    start = clock()
    work()
    return clock() - start


def first_result(method, workers):
    context = mp.get_context(method)
    start = clock()
    pool = context.Pool(workers)
    checked(pool.apply(same, (1,)), 1)
    taken = clock() - start
    pool.terminate()
    pool.join()
    return taken


def memory(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        lines = dict(line.split(":", 1) for line in file.read().splitlines()[1:])
    return [int(lines[key].split()[0]) for key in ("Rss", "Private_Dirty")]


# The cases.


def lock_alone(count):
    os.sched_setaffinity(0, {0})
    value = mp.Value("Q", 0)
    total = 0

    def work():
        for _ in range(count):
            with value.get_lock():
                value.value += 1

    while True:
        taken = seconds(work)
        total += count
        checked(value.value, total)
        yield taken / count * 1e9


def lock_contended(milliseconds):
    while True:
        value, gate, counts = mp.Value("Q", 0), mp.Barrier(2), mp.Queue()
        who = [mp.Process(target=add_until, args=(value, core, gate, milliseconds / 1e3, counts)) for core in (0, 1)]
        for process in who:
            process.start()
        found = [counts.get() for _ in who]
        for process in who:
            process.join()
        checked(value.value, sum(found))
        yield sum(found) / milliseconds / 1e3, {"fairness": min(found) / max(found)}


def on_manager_dict(calls, call):
    """Nanoseconds for one of `calls` on a manager's dictionary of 1000, each of another key than the last; `call` says what it adds."""
    with mp.Manager() as manager:
        keys = [f"key {number:04}" for number in range(1000)]
        shared, lock = manager.dict(zip(keys, range(1000))), manager.Lock()
        total = sum(shared.values())

        def work():
            at = added = 0
            for _ in range(calls):
                at = (at + 7) % 1000
                added += call(shared, lock, keys[at], at)
            return added

        while True:
            start = clock()
            total += work()
            taken = clock() - start
            checked(sum(shared.values()), total)
            yield taken / calls * 1e9


def manager_get(calls):
    def get(shared, _lock, key, at):
        checked(shared[key], at)
        return 0

    return on_manager_dict(calls, get)


def manager_insert(calls):
    def insert(shared, _lock, key, at):
        shared[key] = at
        return 0

    return on_manager_dict(calls, insert)


def manager_update(calls):
    def update(shared, lock, key, _at):
        with lock:
            shared[key] += 1
        return 1

    return on_manager_dict(calls, update)


def manager_append(calls):
    with mp.Manager() as manager:
        shared = manager.list()

        def work():
            for number in range(calls):
                shared.append(number)

        while True:
            del shared[:]
            taken = seconds(work)
            checked((len(shared), shared[0]), (calls, 0))
            yield taken / calls * 1e9


def pool_apply(calls, pause_us):
    with mp.Pool(2) as pool:
        while True:
            yield each(calls, lambda: checked(pool.apply(same, (7,)), 7), pause_us / 1e6)


def futures_submit(calls, pause_us):
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        while True:
            yield each(calls, lambda: checked(pool.submit(same, 7).result(), 7), pause_us / 1e6)


def pool_apply_async(tasks):
    with mp.Pool(2) as pool:

        def work():
            results = [pool.apply_async(same, (x,)) for x in range(tasks)]
            checked(sum(result.get() for result in results), tasks * (tasks - 1) // 2)

        while True:
            yield tasks / seconds(work) / 1e6


def futures_submit_all(tasks):
    with concurrent.futures.ProcessPoolExecutor(2) as pool:

        def work():
            results = [pool.submit(same, x) for x in range(tasks)]
            checked(sum(result.result() for result in results), tasks * (tasks - 1) // 2)

        while True:
            yield tasks / seconds(work) / 1e6


def pool_map(items):
    numbers = list(range(items))
    with mp.Pool(2) as pool:
        while True:
            found = []
            taken = seconds(lambda: found.extend(pool.map(square, numbers)))
            checked((len(found), found[-1]), (items, (items - 1) ** 2))
            yield items / taken / 1e6


def futures_map(items, chunk):
    numbers = list(range(items))
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        while True:
            found = []
            taken = seconds(lambda: found.extend(pool.map(square, numbers, chunksize=chunk)))
            checked((len(found), found[-1]), (items, (items - 1) ** 2))
            yield items / taken / 1e6


def joblib_map(items):
    joblib = library("joblib")
    with joblib.Parallel(2) as parallel:
        while True:
            found = []
            taken = seconds(lambda: found.extend(parallel(joblib.delayed(square)(x) for x in range(items))))
            checked((len(found), found[-1]), (items, (items - 1) ** 2))
            yield items / taken / 1e6


def pool_imap(items, chunk):
    with mp.Pool(2) as pool:
        while True:
            found = []
            taken = seconds(lambda: found.append(sum(pool.imap_unordered(microsecond, range(items), chunk))))
            checked(found[0], items * (items - 1) // 2)
            yield items / taken / 1e6


def numpy_sum(length):
    numbers = library("numpy").ones(length)
    while True:
        taken = seconds(lambda: checked(numbers.sum(), length))
        yield taken * 1e3


def attach(name, length):
    global view, segment
    from multiprocessing import shared_memory

    segment = shared_memory.SharedMemory(name)
    view = library("numpy").ndarray(length, "f8", buffer=segment.buf)


def view_sum(start, end):
    return float(view[start:end].sum())


def numpy_pool_sum(length):
    from multiprocessing import shared_memory

    numpy = library("numpy")
    shared = shared_memory.SharedMemory(create=True, size=8 * length)
    try:
        mine = numpy.ndarray(length, "f8", buffer=shared.buf)
        mine[:] = 1.0
        parts = [(i * length // 16, (i + 1) * length // 16) for i in range(16)]
        with mp.Pool(2, attach, (shared.name, length)) as pool:
            while True:
                taken = seconds(lambda: checked(sum(pool.starmap(view_sum, parts)), length))
                yield taken * 1e3
    finally:
        del mine
        shared.close()
        shared.unlink()


def sha512_tree(tree, expected):
    found = []

    def work():
        paths = (os.path.join(folder, name) for folder, _, names in os.walk(tree) for name in names)
        with mp.Pool(2) as pool:
            found.extend(pool.imap_unordered(digest, paths, 20))

    while True:
        taken = seconds(work)
        folded = 0
        for hashed in found:
            folded ^= int.from_bytes(hashed, "big")
        checked(f"{folded:0128x}", expected)
        found.clear()
        yield taken * 1e3


def pool_echo(size):
    data = os.urandom(1 << 16) * (size >> 16)
    with mp.Pool(1) as pool:
        while True:
            found = []
            taken = seconds(lambda: found.append(pool.apply(same, (data,))))
            checked(found[0] == data, True)
            yield taken * 1e3


def start(method, workers):
    while True:
        yield first_result(method, int(workers)) * 1e3


def worker_memory(method):
    with mp.get_context(method).Pool(2) as pool:
        pool.map(same, range(100))
        while True:
            found = [memory(worker.pid) for worker in pool._pool]
            resident, private = (sum(column) / len(found) for column in zip(*found))
            yield resident, {"private": private}


def queue_of_messages(messages):
    queue = mp.Queue()

    def work():
        for x in range(messages):
            queue.put(x)
        checked(sum(queue.get() for _ in range(messages)), messages * (messages - 1) // 2)

    while True:
        yield seconds(work) / messages * 1e9


def cost(tasks):
    rate = pool_apply_async(tasks)
    while True:
        yield 1e3 / next(rate)


def main():
    case, *arguments = sys.argv[1:]
    run = globals()[case](*(int(word) if word.isdigit() else word for word in arguments))
    for _ in sys.stdin:
        try:
            found = next(run)
        except Absent as reason:
            print("absent:", reason, flush=True)
            return
        value, notes = found if isinstance(found, tuple) else (found, {})
        print(value, *(f"{name}={number}" for name, number in notes.items()), flush=True)
    run.close()


if __name__ == "__main__":
    main()
