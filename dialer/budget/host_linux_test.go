package budget_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/dialer/budget/budgettest"
	"github.com/natwise/natwise/keepalive/netpath"
)

const file = "natwise.budget"

// host returns a member of the budget of n in dir.
func host(t testing.TB, dir string, n int) *budget.Shared {
	t.Helper()
	s, err := budget.Host(dir, n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// shortHold is what the real processes of these tests say of their path.
const shortHold = 200 * time.Millisecond

// child is what another process does: what its standard input says, a line each.
func child(dir string) {
	n := 8
	fmt.Sscan(os.Getenv(limitOf), &n)
	s, err := budget.Host(dir, n)
	if err != nil {
		fmt.Println(err)
		return
	}
	s.SetHold(shortHold)
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		what, rest, _ := strings.Cut(in.Text(), " ")
		switch what {
		case "fill":
			n := 0
			for {
				if _, ok := s.Take(budgettest.Key(1)); !ok {
					break
				}
				n++
			}
			fmt.Println(n)
		case "hammer":
			fmt.Println(hammer(s, dir, 2000))
		case "churn":
			fmt.Println(churn(s, dir, n, rest))
		}
	}
}

// hammer takes and releases grants of 8, and counts them in a file of its own, which all
// processes share. It returns how often there were more.
func hammer(s *budget.Shared, dir string, turns int) (exceeded int) {
	mem := counter(dir)
	defer unix.Munmap(mem)
	count := (*atomic.Int32)(unsafe.Pointer(&mem[0]))
	told := make(chan struct{}, 1)
	s.Notify(told)
	for done := 0; done < turns; {
		g, ok := s.Take(budgettest.Key(1))
		if !ok {
			<-told
			continue
		}
		if count.Add(1) > 8 {
			exceeded++
		}
		count.Add(-1)
		g.Release()
		done++
	}
	return exceeded
}

func counter(dir string) []byte {
	f, err := os.OpenFile(filepath.Join(dir, "counter"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	if err := f.Truncate(4096); err != nil {
		panic(err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	return mem
}

// A peer is a process that shares a budget of 8 with the test.
type peer struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Scanner
}

func peerIn(t *testing.T, dir string) *peer {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childOf+"="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &peer{t, cmd, in, bufio.NewScanner(out)}
	t.Cleanup(func() { p.signal(syscall.SIGKILL); cmd.Wait() })
	if said := p.answer(); said != "ready" {
		t.Fatal(said)
	}
	return p
}

func (p *peer) answer() string {
	p.out.Scan()
	return p.out.Text()
}

func (p *peer) ask(what string) string {
	fmt.Fprintln(p.in, what)
	return p.answer()
}

func (p *peer) signal(s syscall.Signal) { p.cmd.Process.Signal(s) }

func (p *peer) kill() {
	p.signal(syscall.SIGKILL)
	p.cmd.Wait()
}

func TestHostKeepsTheContract(t *testing.T) {
	budgettest.Test(t, func(n int) budget.Budget { return host(t, t.TempDir(), n) })
}

func TestProcessesThatTakeAndReleaseNeverHoldMoreThanTheLimit(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		p := peerIn(t, dir)
		wg.Go(func() {
			if said := p.ask("hammer"); said != "0" {
				t.Errorf("more than the limit: %q times", said)
			}
		})
	}
	wg.Wait()
}

func TestAProcessThatIsKilledLeavesItsPortsForOneHold(t *testing.T) {
	dir := t.TempDir()
	mine := host(t, dir, 8)
	mine.SetHold(shortHold)
	told := make(chan struct{}, 1)
	mine.Notify(told)
	p := peerIn(t, dir)
	if got := p.ask("fill"); got != "8" {
		t.Fatalf("the other process has %q", got)
	}
	if _, ok := mine.Take(budgettest.Key(1)); ok {
		t.Fatal("a ninth port")
	}
	died := time.Now()
	p.kill()
	for got := 0; got < 8; <-told {
		for {
			if _, ok := mine.Take(budgettest.Key(1)); !ok {
				break
			}
			got++
		}
		if early := time.Since(died); got > 0 && early < shortHold {
			t.Fatalf("a port of the dead after %v", early)
		}
		if got == 8 {
			break
		}
	}
}

func TestASuccessorOfAKilledProcessKnowsItsPorts(t *testing.T) {
	dir := t.TempDir()
	p := peerIn(t, dir)
	p.ask("fill")
	p.kill()
	s := host(t, dir, 8)
	if g, ok := s.Take(budgettest.Key(1)); ok {
		t.Errorf("a port that the NAT holds for the predecessor: %v", g)
	}
	if r := s.Reports(budgettest.Key(1))[0]; r.Quarantined != 8 {
		t.Errorf("%+v", r)
	}
}

func TestAStoppedProcessIsNotADeadOne(t *testing.T) {
	dir := t.TempDir()
	mine := host(t, dir, 8)
	told := make(chan struct{}, 1)
	mine.Notify(told)
	p := peerIn(t, dir)
	p.ask("fill")
	p.signal(syscall.SIGSTOP)
	if _, ok := mine.Take(budgettest.Key(1)); ok {
		t.Fatal("a ninth port")
	}
	<-told // a second has passed: longer than the hold, and than two looks at who is alive
	if _, ok := mine.Take(budgettest.Key(1)); ok {
		t.Fatal("a port of a process that still has it")
	}
	if r := mine.Reports(netpath.Key{})[0]; r.Sharers != 2 || r.Quarantined != 0 {
		t.Errorf("%+v", r)
	}
	p.signal(syscall.SIGCONT)
	if got := p.ask("fill"); got != "0" {
		t.Errorf("%q ports more when it went on", got)
	}
}

func TestOnlyTheOwnerCanUseTheFile(t *testing.T) {
	dir := t.TempDir()
	host(t, dir, 8).Close()
	st, err := os.Stat(filepath.Join(dir, file))
	if err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
}

func TestADirectoryOrFileThatOthersCanChangeIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(dir string) error
		want    string
	}{
		"another mode": {func(dir string) error { return os.Chmod(filepath.Join(dir, file), 0o644) }, "mode 0644, want 0600"},
		"a symbolic link": {func(dir string) error {
			return errors.Join(os.Rename(filepath.Join(dir, file), filepath.Join(dir, "other")), os.Symlink("other", filepath.Join(dir, file)))
		}, "is a symbolic link"},
		"a second name": {func(dir string) error { return os.Link(filepath.Join(dir, file), filepath.Join(dir, "other")) }, "has 2 names"},
		"a named pipe": {func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, file)), unix.Mkfifo(filepath.Join(dir, file), 0o600))
		}, "not a regular file"},
		"a directory in its place": {func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, file)), os.Mkdir(filepath.Join(dir, file), 0o700))
		}, "directory"},
		"a directory for all":  {func(dir string) error { return os.Chmod(dir, 0o777) }, "mode 0777"},
		"a linked directory":   {func(dir string) error { return errors.Join(os.Rename(dir, dir+"2"), os.Symlink(dir+"2", dir)) }, "no symbolic link"},
		"a file for directory": {func(dir string) error { return errors.Join(os.Rename(dir, dir+"2"), os.WriteFile(dir, nil, 0o600)) }, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "budget")
			host(t, dir, 8).Close()
			if err := c.prepare(dir); err != nil {
				t.Fatal(err)
			}
			s, err := budget.Host(dir, 8)
			if err == nil {
				s.Close()
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("got %q, want it to say %q and name the path", err, c.want)
			}
		})
	}
}

func TestAFileOfAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	dir := t.TempDir()
	host(t, dir, 8).Close()
	if err := os.Chown(filepath.Join(dir, file), 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if _, err := budget.Host(dir, 8); err == nil || !strings.Contains(err.Error(), "belongs to user 65534, want 0") {
		t.Error(err)
	}
}

func TestAFullDiskIsAnErrorAtTheStartAndNoneLater(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=0700"); err != nil {
		t.Skipf("a small disk cannot be mounted: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	if _, err := budget.Host(dir, 8); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=6m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	s := host(t, dir, 8)
	defer s.Close()
	if err := os.WriteFile(filepath.Join(dir, "fill"), make([]byte, 8<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	for i := range 1000 { // touches all of the file, by and by
		if g, ok := s.Take(manyKeys(i)); !ok {
			t.Fatalf("account %d: no grant on a full disk", i)
		} else {
			g.Release()
		}
	}
}

func TestADamagedFileIsMadeAnewUnlessItIsInUse(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"empty":        func([]byte) []byte { return nil },
		"cut short":    func(b []byte) []byte { return b[:len(b)/2] },
		"not a budget": func(b []byte) []byte { clear(b[:8]); return b },
		"a new layout": func(b []byte) []byte { b[8]++; return b },
		"a huge shape": func(b []byte) []byte { b[23] = 0x7f; return b },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, file)
			host(t, dir, 8).Close()
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			s := host(t, dir, 8)
			if _, ok := s.Take(budgettest.Key(1)); !ok {
				t.Error("no grant from the new file")
			}
			if s.Reports(netpath.Key{})[0].Remembers {
				t.Error("it remembers what was in the damaged one")
			}
		})
	}
	t.Run("in use", func(t *testing.T) {
		dir := t.TempDir()
		s := host(t, dir, 8)
		f, err := os.OpenFile(filepath.Join(dir, file), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte{9}, 8); err != nil {
			t.Fatal(err)
		}
		if _, err := budget.Host(dir, 8); err == nil || !strings.Contains(err.Error(), "has another layout, and another process uses it") {
			t.Error(err)
		}
		if _, ok := s.Take(budgettest.Key(1)); !ok {
			t.Error("who uses it cannot go on")
		}
	})
}

func TestAFileThatIsRemovedOrCutShortInUseIsLeftForANewOne(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"removed":   os.Remove,
		"cut short": func(path string) error { return os.Truncate(path, 0) },
		"exchanged": func(path string) error {
			return errors.Join(os.WriteFile(path+".2", nil, 0o600), os.Rename(path+".2", path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, other := host(t, dir, 8), host(t, dir, 8)
			for range 8 {
				s.Take(budgettest.Key(9))
			}
			if err := harm(filepath.Join(dir, file)); err != nil {
				t.Fatal(err)
			}
			told := make(chan struct{}, 1)
			s.Notify(told)
			other.Notify(told)
			for {
				st, err := os.Stat(filepath.Join(dir, file))
				together := err == nil && st.Size() > 0
				for _, s := range []*budget.Shared{s, other} {
					s.Take(budgettest.Key(9)) // there is none: it looks, and calls
					r := s.Reports(netpath.Key{})[0]
					together = together && r.Degraded == "" && r.Sharers == 2
				}
				if together {
					break
				}
				<-told
			}
			if _, ok := other.Take(budgettest.Key(9)); ok {
				t.Error("what the first process holds did not go along: a ninth port")
			}
		})
	}
}

func TestWithoutAFileAProcessKeepsToAnEqualPartAndGivesBackWhatIsMore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "budget")
	s, other := host(t, dir, 8), host(t, dir, 8)
	told := make(chan struct{}, 1)
	s.Notify(told)
	var grants []budget.Grant
	for range 8 {
		g, _ := s.Take(budgettest.Key(1))
		grants = append(grants, g)
	}
	other.Take(budgettest.Key(1)) // is refused, and so known
	for s.Reports(netpath.Key{})[0].Sharers != 2 {
		s.Take(budgettest.Key(1))
		<-told
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, file)), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	revoked := 0
	for revoked < 4 || !strings.Contains(s.Reports(netpath.Key{})[0].Degraded, "mode 0777") {
		s.Take(budgettest.Key(1))
		<-told
		revoked = 0
		for _, g := range grants {
			if g.Revoked() {
				revoked++
			}
		}
	}
	if revoked != 4 {
		t.Errorf("%d of 8 are wanted back, want half", revoked)
	}
	got := 0
	for ; got < 8; got++ { // of an account that it did not have before
		if _, ok := s.Take(budgettest.Key(2)); !ok {
			break
		}
	}
	if got != 4 {
		t.Errorf("%d, want half of 8", got)
	}
}

func TestAProcessGoesToTheFileThatThePathLeadsTo(t *testing.T) {
	base := t.TempDir()
	link := filepath.Join(base, "current")
	if err := errors.Join(os.Mkdir(filepath.Join(base, "1"), 0o700), os.Mkdir(filepath.Join(base, "2"), 0o700), os.Symlink("1", link)); err != nil {
		t.Fatal(err)
	}
	old := host(t, filepath.Join(link, "budget"), 8)
	told := make(chan struct{}, 1)
	old.Notify(told)
	for range 8 {
		old.Take(budgettest.Key(1))
	}
	if err := errors.Join(os.Remove(link), os.Symlink("2", link)); err != nil {
		t.Fatal(err)
	}
	young := host(t, filepath.Join(link, "budget"), 8)
	for old.Reports(netpath.Key{})[0].Sharers != 2 {
		old.Take(budgettest.Key(1))
		<-told
	}
	if _, ok := young.Take(budgettest.Key(1)); ok {
		t.Error("a ninth port")
	}
}

func TestAfterTheMachineWasStartedAgainAllIsKeptForAHold(t *testing.T) {
	dir := t.TempDir()
	s := host(t, dir, 8)
	for range 8 {
		s.Take(budgettest.Key(1))
	}
	s.Close()
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, 16), 32); err != nil { // the boot that it is of
		t.Fatal(err)
	}
	s = host(t, dir, 8)
	if _, ok := s.Take(budgettest.Key(1)); ok {
		t.Error("a port from before")
	}
	if r := s.Reports(budgettest.Key(1))[0]; r.Quarantined != 8 {
		t.Errorf("%+v", r)
	}
}

func TestBadLimitsAreErrorsThatNameThem(t *testing.T) {
	dir := t.TempDir()
	if _, err := budget.Host(dir, -3); err == nil || err.Error() != "budget: limit is -3, want 0 or more" {
		t.Error(err)
	}
	host(t, dir, 8)
	if _, err := budget.Host(dir, 5000); err == nil || !strings.Contains(err.Error(), "limit is 5000") || !strings.Contains(err.Error(), "room for 256") {
		t.Error(err)
	}
}

func TestASecondCloseIsAnError(t *testing.T) {
	s := host(t, t.TempDir(), 8)
	g, _ := s.Take(budgettest.Key(1))
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err == nil {
		t.Error("closed twice")
	}
	g.Release() // late
	if _, ok := s.Take(budgettest.Key(1)); ok {
		t.Error("a grant after Close")
	}
}

func TestOneHundredAndTwentyEightProcessesShare(t *testing.T) {
	dir := t.TempDir()
	for range 128 {
		host(t, dir, 128)
	}
	if _, err := budget.Host(dir, 128); err == nil || !strings.Contains(err.Error(), "128 processes share") {
		t.Error(err)
	}
}

func TestAGrantOfHostCostsNoMemory(t *testing.T) {
	s := host(t, t.TempDir(), 128)
	s.Take(budgettest.Key(1))
	if n := testing.AllocsPerRun(1000, func() {
		g, _ := s.Take(budgettest.Key(1))
		g.Release()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkHostTakeAndRelease(b *testing.B) {
	s := host(b, b.TempDir(), 128)
	s.Take(budgettest.Key(1))
	b.ReportAllocs()
	for b.Loop() {
		g, _ := s.Take(budgettest.Key(1))
		g.Release()
	}
}
