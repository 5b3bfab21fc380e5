"""One writer of a soak: writes to its directory in its own way, for ever, and reads back what it wrote.

    python3 writers.py KIND DIRECTORY

What it has written is told by its memory alone. When the VM is put back to a snapshot, memory and disk have
to be of the same instant: else what it reads is not what it knows. It says so in a file in memory
(/dev/shm/bad-KIND) and ends. /dev/shm/count-KIND has the rounds that it has done.
"""
import mmap
import os
import random
import sys

kind, directory = sys.argv[1:]
os.makedirs(directory, exist_ok=True)
os.chdir(directory)
dice = random.Random(os.urandom(8))
BLOCK = 4096


def block(name, number):
    """A block that says whose it is, so that another's, or an older one, is told from it."""
    word = f'{kind} {name} {number}\n'.encode()
    return (word * (BLOCK // len(word) + 1))[:BLOCK]


def expect(what, found, wanted):
    if found != wanted:
        with open(f'/dev/shm/bad-{kind}', 'w') as file:
            file.write(f'{kind}: {what}: {found[:60]!r} instead of {wanted[:60]!r}\n')
        sys.exit(1)


def read_from_disk(path):
    """The file's bytes, from the disk where it was flushed, and not from memory."""
    with open(path, 'rb', buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return file.read()


def flush_directory():
    handle = os.open('.', os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def fsync():
    """Appends, each block flushed; a new file after each MiB."""
    name = 0
    while True:
        name += 1
        path = f'log-{name % 4}'
        wanted = b''
        with open(path, 'wb', buffering=0) as file:
            for number in range(256):
                wanted += block(name, number)
                file.write(wanted[-BLOCK:])
                os.fsync(file.fileno())
                if number % 32 == 31:
                    expect(path, read_from_disk(path), wanted)
                yield


def rename():
    """Replaces files as a database does: a new one is written, flushed, and renamed over the old one."""
    known = {}
    turn = 0
    while True:
        turn += 1
        path = f'record-{dice.randrange(16)}'
        known[path] = b''.join(block(path, turn + n) for n in range(dice.randrange(1, 17)))
        with open('new', 'wb') as file:
            file.write(known[path])
            file.flush()
            os.fsync(file.fileno())
        os.rename('new', path)
        if dice.random() < 0.5:
            flush_directory()
        other = dice.choice(list(known))
        expect(other, read_from_disk(other), known[other])
        yield


def map_memory():
    """Writes pages of a file that is mapped into its memory."""
    pages = 512
    known = [block('page', n) for n in range(pages)]
    with open('mapped', 'w+b') as file:
        file.write(b''.join(known))
        file.flush()
        with mmap.mmap(file.fileno(), pages * BLOCK) as memory:
            while True:
                for _ in range(32):
                    page = dice.randrange(pages)
                    known[page] = block('page', dice.randrange(10**9))
                    memory[page * BLOCK : (page + 1) * BLOCK] = known[page]
                if dice.random() < 0.5:
                    memory.flush()
                    wanted = b''.join(known)
                    expect('mapped', read_from_disk('mapped'), wanted)
                yield


def tree():
    """Makes, links, renames, truncates and removes small files and directories; flushes nothing."""
    known = {}
    turn = 0
    while True:
        turn += 1
        place = f'd{turn % 8}'
        os.makedirs(place, exist_ok=True)
        path = f'{place}/f{dice.randrange(40)}'
        act = dice.randrange(5)
        if act == 0 and path in known:
            os.unlink(path)
            del known[path]
        elif act == 1 and path in known:
            known[path] = known[path][: dice.randrange(1, 2000)]
            os.truncate(path, len(known[path]))
        elif act == 2 and path in known:
            target = f'd{dice.randrange(8)}/f{dice.randrange(40)}'
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if target != path:
                os.rename(path, target)
                known[target] = known.pop(path)
        elif act == 3 and path in known and f'{path}-link' not in known:
            os.link(path, f'{path}-link')
            os.unlink(f'{path}-link')
        else:
            known[path] = block(path, turn)[: dice.randrange(1, BLOCK)]
            with open(path, 'wb') as file:
                file.write(known[path])
        if turn % 50 == 0:
            found = sorted(f'{place}/{name}' for place in os.listdir('.') for name in os.listdir(place))
            expect('names', found, sorted(known))
            for path in found:
                expect(path, open(path, 'rb').read(), known[path])
        yield


def bulk():
    """Megabytes at a time, in files that are made longer, shorter, and thrown away; sometimes all is flushed."""
    turn = 0
    while True:
        turn += 1
        path = f'bulk-{turn % 3}'
        blocks = [block(path, turn * 10_000 + n) for n in range(2048)]
        with open(path, 'wb') as file:
            for at in range(0, len(blocks), 64):
                file.write(b''.join(blocks[at : at + 64]))
                yield
        keep = dice.randrange(1, len(blocks))
        os.truncate(path, keep * BLOCK)
        if dice.random() < 0.5:
            os.sync()
        expect(path, read_from_disk(path), b''.join(blocks[:keep]))
        if dice.random() < 0.3:
            os.unlink(path)
        yield


WAYS = {'fsync': fsync, 'rename': rename, 'mmap': map_memory, 'tree': tree, 'bulk': bulk}
count = 0
for _ in WAYS[kind]():
    count += 1
    if count % 10 == 0:
        with open(f'/dev/shm/count-{kind}', 'w') as file:
            file.write(str(count))
