package budget

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const fileName = "natwise.budget"

// A hostFile is the file of a table, mapped into memory. A member has a lock on the byte of
// its line: of the open file, so that the kernel takes it back when the process ends,
// however it ends, and not before. Process ids, which are used again, and which containers
// count each for themselves, are not needed.
type hostFile struct {
	dir  int // the directory; open, and locked, while the file is opened
	fd   int
	path string
	mem  []byte
}

var _ placeFile = (*hostFile)(nil)

// sinceBoot is the time since the machine was started, suspended or not, in ms. It is the
// same in all processes, and nobody sets it.
func sinceBoot() uint64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(fmt.Sprintf("budget: CLOCK_BOOTTIME: %v", err)) // there since Linux 2.6.39
	}
	return uint64(t.Nano()) / uint64(time.Millisecond)
}

// openPlace makes this process a member of the table in dir, which is made if needed.
func openPlace(dir string, n int) (*place, error) {
	d, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	defer unix.Close(d) // and with it its lock
	f := &hostFile{dir: d, fd: -1, path: filepath.Join(dir, fileName)}
	p, err := f.openGuarded(n)
	if err != nil {
		f.Close()
		return nil, err
	}
	return p, nil
}

// openGuarded is open, and an error where the file is cut short meanwhile.
func (f *hostFile) openGuarded(n int) (p *place, err error) {
	defer func(before bool) {
		debug.SetPanicOnFault(before)
		if r := recover(); r != nil {
			mustBeFault(r)
			p, err = nil, fmt.Errorf("budget: %s was cut short while it was opened", f.path)
		}
	}(debug.SetPanicOnFault(true))
	return f.open(n)
}

// openDir opens the directory, and takes its lock: who opens the file is alone.
func openDir(dir string) (int, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return -1, fmt.Errorf("budget: %w", err)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return -1, fmt.Errorf("budget: %s is not a directory itself, want no symbolic link", dir)
	}
	if err != nil {
		return -1, fmt.Errorf("budget: %w", &fs.PathError{Op: "open", Path: dir, Err: err})
	}
	if err := trusted(fd, dir); err != nil {
		unix.Close(fd)
		return -1, err
	}
	for tries := 0; ; tries++ {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return fd, nil
		}
		if tries == 200 || !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			unix.Close(fd)
			return -1, fmt.Errorf("budget: %w", &fs.PathError{Op: "lock", Path: dir, Err: err})
		}
		time.Sleep(10 * time.Millisecond) // who holds it is done within a millisecond
	}
}

// trusted says what is wrong with a directory for a file that nobody else may exchange.
func trusted(fd int, dir string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("budget: %w", &fs.PathError{Op: "stat", Path: dir, Err: err})
	}
	if uid := os.Geteuid(); st.Uid != uint32(uid) && st.Uid != 0 {
		return fmt.Errorf("budget: %s belongs to user %d, want %d, who runs this process, or root", dir, st.Uid, uid)
	}
	if st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0 {
		return fmt.Errorf("budget: %s has mode %#o: others could exchange the file; want no write permission for them, or the sticky bit",
			dir, st.Mode&0o7777)
	}
	var fsys unix.Statfs_t
	if err := unix.Fstatfs(fd, &fsys); err != nil {
		return fmt.Errorf("budget: %w", &fs.PathError{Op: "statfs", Path: dir, Err: err})
	}
	if name := overNetwork[int64(uint32(fsys.Type))]; name != "" {
		return fmt.Errorf("budget: %s is on %s, where several machines would take it for one; want a disk or memory of this machine, such as /dev/shm/natwise", dir, name)
	}
	return nil
}

// overNetwork are the types of file systems that machines share: not all of what each of
// them writes to its memory is seen by the others.
var overNetwork = map[int64]string{
	unix.NFS_SUPER_MAGIC: "NFS", unix.SMB_SUPER_MAGIC: "SMB", unix.SMB2_SUPER_MAGIC: "SMB", unix.CIFS_SUPER_MAGIC: "CIFS",
	unix.V9FS_MAGIC: "9P", unix.FUSE_SUPER_MAGIC: "FUSE", unix.CEPH_SUPER_MAGIC: "Ceph", unix.AFS_SUPER_MAGIC: "AFS",
}

// open maps the file, made or mended if that is needed, and takes a member's line in it.
func (f *hostFile) open(n int) (*place, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	err = f.mapFile()
	if errors.Is(err, fs.ErrNotExist) {
		err = f.create(n, boot)
	}
	if err != nil {
		return nil, err
	}
	if wrong := fits(f.mem); wrong != "" {
		if err := f.replace(wrong, n, boot); err != nil {
			return nil, err
		}
	}
	t := over(f.mem)
	if n > t.slots {
		return nil, fmt.Errorf("budget: limit is %d, and %s was made with room for %d: end the processes that use it, and remove it", n, f.path, t.slots)
	}
	if t.head.boot != boot {
		t.rebase(boot, sinceBoot())
	}
	return f.join(t)
}

// mapFile maps the file as it is.
func (f *hostFile) mapFile() error {
	fd, err := unix.Openat(f.dir, fileName, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("budget: %s is a symbolic link", f.path)
	}
	if err != nil {
		return fmt.Errorf("budget: %w", &fs.PathError{Op: "open", Path: f.path, Err: err})
	}
	f.fd = fd
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("budget: %w", &fs.PathError{Op: "stat", Path: f.path, Err: err})
	}
	switch uid := os.Geteuid(); {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("budget: %s is not a regular file", f.path)
	case st.Uid != uint32(uid):
		return fmt.Errorf("budget: %s belongs to user %d, want %d, who runs this process", f.path, st.Uid, uid)
	case st.Mode&0o7777 != 0o600:
		return fmt.Errorf("budget: %s has mode %#o, want 0600", f.path, st.Mode&0o7777)
	case st.Nlink != 1:
		return fmt.Errorf("budget: %s has %d names, want this one only", f.path, st.Nlink)
	case st.Size == 0:
		return nil // nothing to map; it does not fit
	}
	f.mem, err = unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("budget: %w", &fs.PathError{Op: "mmap", Path: f.path, Err: err})
	}
	return nil
}

// create makes the file. It gets its name when it is whole, and its room is taken on the
// disk before: a disk that fills up later does not matter.
func (f *hostFile) create(n int, boot [2]uint64) error {
	f.Close() // of what was there
	accounts, slots := shape(n)
	temporary := fmt.Sprintf(".%s.new", fileName) // one at a time: the directory is locked
	fail := func(op string, err error) error {
		unix.Unlinkat(f.dir, temporary, 0)
		return fmt.Errorf("budget: %w", &fs.PathError{Op: op, Path: f.path, Err: err})
	}
	unix.Unlinkat(f.dir, temporary, 0) // of a process that was killed here
	fd, err := unix.Openat(f.dir, temporary, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fail("create", err)
	}
	f.fd = fd
	size := sizeOf(accounts, slots)
	if err := unix.Fchmod(fd, 0o600); err != nil { // whatever the umask is
		return fail("chmod", err)
	}
	if err := unix.Fallocate(fd, 0, 0, int64(size)); err != nil {
		return fail("allocate", err)
	}
	if f.mem, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fail("mmap", err)
	}
	format(f.mem, accounts, slots, boot, sinceBoot())
	if err := unix.Renameat(f.dir, temporary, f.dir, fileName); err != nil {
		return fail("rename", err)
	}
	return nil
}

// replace makes a new file in place of one that cannot be used, unless somebody does.
func (f *hostFile) replace(wrong string, n int, boot [2]uint64) error {
	for i := range maxMembers {
		if f.Alive(i) {
			return fmt.Errorf("budget: %s %s, and another process uses it", f.path, wrong)
		}
	}
	return f.create(n, boot)
}

// join takes the first line that nobody has.
func (f *hostFile) join(t *table) (*place, error) {
	for i := range maxMembers {
		lock := lockOf(i)
		err := unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_SETLK, &lock)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("budget: %w", &fs.PathError{Op: "lock", Path: f.path, Err: err})
		}
		return t.join(i, sinceBoot(), f), nil
	}
	return nil, fmt.Errorf("budget: %d processes share %s already, want at most that many", maxMembers, f.path)
}

// linesAt is where in the file the locks of the members are: far behind its end.
const linesAt = 1 << 40

func lockOf(member int) unix.Flock_t {
	return unix.Flock_t{Type: unix.F_WRLCK, Whence: 0, Start: linesAt + int64(member), Len: 1}
}

// Alive reports whether a process has the member's line. One that cannot be asked about is.
func (f *hostFile) Alive(member int) bool {
	lock := lockOf(member)
	err := unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_GETLK, &lock)
	return err != nil || lock.Type != unix.F_UNLCK
}

// Moved says why the next process would not find this file, or not as it was.
func (f *hostFile) Moved() string {
	var mine, there unix.Stat_t
	if unix.Fstat(f.fd, &mine) != nil {
		return ""
	}
	switch err := unix.Lstat(f.path, &there); { // the next process goes by the path
	case errors.Is(err, unix.ENOENT):
		return "the file was removed"
	case err != nil:
		return ""
	case there.Ino != mine.Ino || there.Dev != mine.Dev:
		return "the file was exchanged"
	case there.Size != int64(len(f.mem)):
		return "the file was cut short"
	}
	return ""
}

// Close lets go of the file, which gives up the member's line.
func (f *hostFile) Close() {
	if f.mem != nil {
		unix.Munmap(f.mem)
		f.mem = nil
	}
	if f.fd >= 0 {
		unix.Close(f.fd)
		f.fd = -1
	}
}

// bootID tells one start of the machine from the others.
func bootID() (id [2]uint64, err error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id, fmt.Errorf("budget: %w", err)
	}
	if _, err := fmt.Sscanf(strings.ReplaceAll(strings.TrimSpace(string(b)), "-", ""), "%16x%16x", &id[0], &id[1]); err != nil {
		return id, fmt.Errorf("budget: the machine's boot_id is %q: %w", b, err)
	}
	return id, nil
}
