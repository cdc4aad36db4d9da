package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A process holds sockets, or has held some.
type process struct {
	pid   int // zero: those of this name that have ended
	name  string
	ended bool
}

func (p *process) String() string {
	switch {
	case p == nil:
		return "unknown"
	case p.pid == 0:
		return p.name + "(ended)"
	}
	return fmt.Sprintf("%s(%d)", p.name, p.pid)
}

// program is the name of what it runs.
func (p *process) program() string {
	if p == nil {
		return ""
	}
	return p.name
}

// number is the pid, zero where there is none.
func (p *process) number() int {
	if p == nil {
		return 0
	}
	return p.pid
}

// A proc is what the system tells in files: /proc, or a test's own.
type proc struct {
	root   string
	known  map[int]*process // that have held sockets
	hidden map[int]bool     // that live, and did not let us see what they hold
}

func newProc(root string) *proc {
	return &proc{root: root, known: make(map[int]*process), hidden: make(map[int]bool)}
}

// find tells each flow its owner, by the inode of its socket. Those who had one may have
// the next; the others are asked too if all is said. Then, what no process holds that lets
// us look is not sought again.
func (p *proc) find(want map[uint32]*flow, all bool) {
	for pid := range p.known {
		p.search(pid, want)
	}
	if !all {
		return
	}
	for _, pid := range p.pids() {
		if len(want) == 0 {
			return
		}
		if p.known[pid] == nil {
			p.search(pid, want)
		}
	}
	for _, f := range want {
		f.sought = true
	}
}

// search looks for the sockets among one process's files.
func (p *proc) search(pid int, want map[uint32]*flow) {
	if len(want) == 0 {
		return
	}
	dir := filepath.Join(p.root, strconv.Itoa(pid), "fd")
	files, err := os.Open(dir)
	var names []string
	if err == nil {
		names, err = files.Readdirnames(-1) // what was read of a process that ends is good
		files.Close()
	}
	delete(p.hidden, pid)
	if errors.Is(err, fs.ErrPermission) {
		p.hidden[pid] = true
	}
	for _, name := range names {
		link, err := os.Readlink(dir + "/" + name)
		if err != nil {
			continue
		}
		inode, ok := socketInode(link)
		if f := want[inode]; ok && f != nil {
			f.owner = p.process(pid)
			delete(want, inode)
		}
	}
}

// socketInode reads "socket:[4711]".
func socketInode(link string) (uint32, bool) {
	digits, ok := strings.CutPrefix(link, "socket:[")
	if !ok {
		return 0, false
	}
	digits, ok = strings.CutSuffix(digits, "]")
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint32(n), ok && err == nil && n != 0
}

// process is the one with this number. It goes by the name that the kernel has for it,
// since arguments may hold secrets.
func (p *proc) process(pid int) *process {
	name := p.text(strconv.Itoa(pid), "comm")
	if known := p.known[pid]; known != nil && known.name == name {
		return known
	}
	if known := p.known[pid]; known != nil {
		known.ended = true // it became another program
	}
	p.known[pid] = &process{pid: pid, name: name}
	return p.known[pid]
}

// bury notes who has ended.
func (p *proc) bury() {
	for pid, known := range p.known {
		if p.gone(pid) {
			known.ended = true
			delete(p.known, pid)
		}
	}
	maps.DeleteFunc(p.hidden, func(pid int, _ bool) bool { return p.gone(pid) })
}

func (p *proc) gone(pid int) bool {
	_, err := os.Stat(filepath.Join(p.root, strconv.Itoa(pid)))
	return errors.Is(err, fs.ErrNotExist)
}

func (p *proc) pids() (pids []int) {
	entries, _ := os.ReadDir(p.root) // without, nobody is found, which is told
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// elsewhere counts the network namespaces besides this one, and names a process in the
// last of them.
func (p *proc) elsewhere() (namespaces, pid int) {
	seen := make(map[string]bool)
	for _, one := range p.pids() {
		if ns := p.namespace(strconv.Itoa(one)); ns != "" && ns != p.namespace("self") && !seen[ns] {
			seen[ns], pid = true, one
		}
	}
	return len(seen), pid
}

// namespace is the network that a process sees, "" if it does not let us see.
func (p *proc) namespace(process string) string {
	name, _ := os.Readlink(filepath.Join(p.root, process, "ns/net"))
	return name
}

// again is how to call the program that was called by this name, in another namespace. The
// file of go run is gone by then.
func again(called string) string {
	if strings.Contains(called, "go-build") {
		return "doctor"
	}
	return called
}

// language is "natwise" for a program in Go that has natwise in it, "go" for any other in
// Go, "" where that cannot be seen.
func (p *proc) language(pid int) string {
	info, err := buildinfo.ReadFile(filepath.Join(p.root, strconv.Itoa(pid), "exe"))
	if err != nil {
		return ""
	}
	for _, dep := range info.Deps {
		if dep.Path == "github.com/natwise/natwise" {
			return "natwise"
		}
	}
	return "go"
}

// text is what a file says, "" if it says nothing.
func (p *proc) text(path ...string) string {
	b, _ := os.ReadFile(filepath.Join(append([]string{p.root}, path...)...)) // absent is as good as empty
	return strings.TrimSpace(string(b))
}

// numbers are those that a file consists of, all of them or none.
func (p *proc) numbers(path string) (ns []int) {
	for _, field := range strings.Fields(p.text(path)) {
		n, err := strconv.Atoi(field)
		if err != nil {
			return nil
		}
		ns = append(ns, n)
	}
	return ns
}

// connects is how many connections were begun in this network namespace, ever. Not ok:
// the system does not tell.
func (p *proc) connects() (n int, ok bool) { return activeOpens(p.text("thread-self/net/snmp")) }

// activeOpens reads the counter of that name in the format of net/snmp, where a line
// of names stands above a line of values.
func activeOpens(snmp string) (int, bool) {
	var names []string
	for line := range strings.Lines(snmp) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "Tcp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			if name == "ActiveOpens" && i < len(fields) {
				n, err := strconv.Atoi(fields[i])
				return n, err == nil && n >= 0
			}
		}
	}
	return 0, false
}
