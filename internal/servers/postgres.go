package servers

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
)

// Nothing is synced, which only a crash of the machine would punish. A commit is
// still written before it is acknowledged, and a page that Kill tore is restored.
//
// Memory that the processes share is of kinds that end with them, or are files
// in the data directory: nothing is left behind on the machine.
const postgresConf = `
listen_addresses = '%s'
port = %d
unix_socket_directories = ''
hba_file = '%s'
max_connections = 300
shared_buffers = 16MB
dynamic_shared_memory_type = mmap
fsync = off
ssl = on
ssl_cert_file = '%s'
ssl_key_file = '%s'
%s
`

// Postgres returns a PostgreSQL that runs, with more lines for its
// postgresql.conf:
//
//	s := servers.Postgres(t, "max_connections = 20", "ssl = off")
//
// Passwords are asked for with scram-sha-256. What was committed before a Kill
// is there after the next Start.
func Postgres(t T, config ...string) *Server {
	t.Helper()
	return Place{}.Postgres(t, config...)
}

// Postgres is the function Postgres, in this place.
func (p Place) Postgres(t T, config ...string) *Server {
	t.Helper()
	s := prepare(t, p, "postgres", "postgresql", "/usr/lib/postgresql/*/bin/")
	s.certify()
	access := s.write("pg_hba.conf", "host all all all scram-sha-256\n")
	conf := s.write("postgresql.conf", fmt.Sprintf(postgresConf,
		s.at.addr.Addr(), s.at.addr.Port(), access, s.CertFile(), s.keyFile(), strings.Join(config, "\n")))
	password := s.write("password", Password)
	s.args = []string{"-D", s.data(), "-c", "config_file=" + conf}
	s.quit = syscall.SIGINT // which does not wait for the clients
	s.hello, s.answer = postgresHello(), "SCRAM-SHA-256"
	s.nobody = true
	s.install = func() error {
		if err := s.once("", filepath.Join(filepath.Dir(s.path), "initdb"), "-D", s.data(),
			"-U", User, "--pwfile", password, "-A", "scram-sha-256",
			"-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions", "--wal-segsize=1"); err != nil {
			return err
		}
		return s.once("CREATE DATABASE "+Database, s.path, "--single", "-F", "-D", s.data(), "postgres")
	}
	return s.first()
}

// postgresHello asks to log in, and goes away when asked for the password. Until
// a server is ready it refuses to hear of users, though it answers an SSLRequest.
func postgresHello() string {
	const version3 = 3 << 16
	login := fmt.Sprintf("user\x00%s\x00database\x00%s\x00\x00", User, Database)
	hello := binary.BigEndian.AppendUint32(nil, uint32(8+len(login)))
	hello = binary.BigEndian.AppendUint32(hello, version3)
	return string(hello) + login + "X\x00\x00\x00\x04"
}
