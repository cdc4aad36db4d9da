package servers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// As little memory and disk as it works with. Temporary tables are in a place of its own: their
// names have the number of the process, which is 1 for each of them. The log is written at each
// commit, though not synced: that is as good for all that a test can do to it.
const mariadbConf = `
[mysqld]
datadir = %[1]s
tmpdir = %[1]s
socket = socket
bind-address = %[2]s
port = %[3]d
skip-name-resolve
host-cache-size = 0
max-connections = 300
innodb-buffer-pool-size = 16M
innodb-log-file-size = 8M
innodb-data-file-path = ibdata1:1M:autoextend
innodb-temp-data-file-path = ibtmp1:1M:autoextend
innodb-flush-log-at-trx-commit = 2
innodb-flush-method = nosync
innodb-use-native-aio = 0
ssl-cert = %[4]s
ssl-key = %[5]s
%[6]s
`

// MariaDB returns a MariaDB that runs, with more lines for the section mysqld of
// its my.cnf:
//
//	s := servers.MariaDB(t, "wait-timeout = 1") // hangs up on the idle after a second
//
// Passwords are asked for with mysql_native_password. What was committed before
// a Kill is there after the next Start.
func MariaDB(t T, config ...string) *Server {
	t.Helper()
	return Place{}.MariaDB(t, config...)
}

// MariaDB is the function MariaDB, in this place.
func (p Place) MariaDB(t T, config ...string) *Server {
	t.Helper()
	s := prepare(t, p, "mariadbd", "mariadb-server-core")
	s.certify()
	conf := s.write("my.cnf", fmt.Sprintf(mariadbConf,
		s.data(), s.at.addr.Addr(), s.at.addr.Port(), s.CertFile(), s.keyFile(), strings.Join(config, "\n")))
	s.args = []string{"--defaults-file=" + conf}
	s.quit = syscall.SIGTERM
	// It greets with the name of the method. What it hears then is no answer, so
	// it hangs up.
	s.hello, s.answer = "\x00\x00\x00\x01", "mysql_native_password"
	s.nobody = true
	s.install = func() error {
		tables, err := mariadbTables()
		if err != nil {
			return err
		}
		return s.once(tables+mariadbUsers, s.path, "--defaults-file="+conf, "--bootstrap")
	}
	return s.first()
}

// Each statement ends its line.
const mariadbUsers = `
FLUSH PRIVILEGES;
CREATE DATABASE ` + Database + `;
CREATE USER ` + User + `@'%' IDENTIFIED VIA mysql_native_password USING PASSWORD('` + Password + `');
GRANT ALL ON *.* TO ` + User + `@'%' WITH GRANT OPTION;
`

// mariadbTables is SQL for the tables without which no MariaDB starts: what
// mariadb-install-db does, less the help texts and views that take it longest.
func mariadbTables() (string, error) {
	sql := "CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n"
	for _, name := range []string{"system_tables.sql", "system_tables_data.sql"} {
		found, err := filepath.Glob("/usr/share/m*/m*_" + name) // mysql, or mariadb in later releases
		if err != nil || len(found) == 0 {
			return "", errors.Join(fmt.Errorf("servers: no %s of MariaDB", name), err)
		}
		text, err := os.ReadFile(found[0])
		if err != nil {
			return "", err
		}
		sql += string(text)
	}
	return sql, nil
}
