package sessplussql

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"

	"github.com/sessplus/sessplus"
)

// The texts of databases quote what they complain about, so none of them goes into an error. Drivers are known by what
// their errors can be asked, because importing them would link all three into every program.

// stateOf returns the SQLSTATE of an error of PostgreSQL, or "".
func stateOf(err error) string {
	var e interface{ SQLState() string }
	if errors.As(err, &e) {
		return e.SQLState()
	}
	return ""
}

// mysqlNumber returns the number of a MySQL error, or 0. Its type has no method for that.
func mysqlNumber(err error) int {
	for ; err != nil; err = errors.Unwrap(err) {
		v := reflect.Indirect(reflect.ValueOf(err))
		if v.Kind() == reflect.Struct {
			if n := v.FieldByName("Number"); n.IsValid() && n.CanUint() {
				return int(n.Uint())
			}
		}
	}
	return 0
}

// sqliteCode returns the primary result code of an error of SQLite, or 0.
func sqliteCode(err error) int {
	var e interface{ Code() int }
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

// explain returns what may be said about an error, and whether a retry may succeed.
func (b *Backend) explain(ctx context.Context, err error) (again bool, told error) {
	say := func(format string, args ...any) error { return fmt.Errorf("%s: "+format, append([]any{b}, args...)...) }
	var fault *faultError
	state, number, code := stateOf(err), mysqlNumber(err), sqliteCode(err)
	switch {
	case err == errStale:
		return true, say("%w", err)
	case err == sessplus.ErrTooLarge:
		return false, say("%w for the server's max_allowed_packet", err)
	case errors.As(err, &fault):
		return false, say("%w", fault)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), ctx.Err() != nil:
		if s := b.db.Stats(); s.MaxOpenConnections > 0 && s.InUse >= s.MaxOpenConnections {
			return false, say("all %d connections that SetMaxOpenConns allows are in use", s.MaxOpenConnections)
		}
		return false, say("no answer in time")
	case err.Error() == "sql: database is closed":
		return false, say("the *sql.DB is closed")
	case b.dialect == PostgreSQL && state != "":
		again, text, large := postgresFault(state)
		if large {
			return false, say("%w for the database", sessplus.ErrTooLarge)
		}
		return again, say("%s (SQLSTATE %s)", b.named(text), state)
	case b.dialect == MySQL && number != 0:
		again, text, large := mysqlFault(number)
		if large {
			return false, say("%w for the server's max_allowed_packet", sessplus.ErrTooLarge)
		}
		return again, say("%s (error %d)", b.named(text), number)
	case b.dialect == MySQL && strings.Contains(err.Error(), "packet for query is too large"):
		return false, say("%w for the driver's maxAllowedPacket", sessplus.ErrTooLarge)
	case b.dialect == SQLite && code != 0:
		again, text, large := sqliteFault(code, err.Error())
		if large {
			return false, say("%w for the database", sessplus.ErrTooLarge)
		}
		return again, say("%s (code %d)", b.named(text), code)
	}
	return true, say("%s", lost(err))
}

// named puts the table into a text.
func (b *Backend) named(text string) string { return strings.ReplaceAll(text, "{t}", b.table) }

// What databases complain about and a person can do something about.
const (
	noTable    = "there is no table {t}: CreateTables makes it, or a migration with the statements of Schema"
	otherTable = "the table {t} is not the one of Schema: choose another name in Options.Table, or drop it"
	noRight    = "the user lacks a right: SELECT, INSERT, UPDATE and DELETE on {t} and {t}_fields are needed"
	readOnly   = "the database is read-only, as a replica is: sessions need the primary"
	refused    = "the server refuses the user or the password"
	noDatabase = "there is no such database"
	crowded    = "the server has no connection left"
	starting   = "the server starts or stops"
	conflict   = "another transaction is in the way"
	diskFull   = "the disk is full"
)

func postgresFault(state string) (again bool, text string, large bool) {
	switch state {
	case "42P01":
		return false, noTable, false
	case "42703":
		return false, otherTable, false
	case "42501":
		return false, noRight, false
	case "25006":
		return false, readOnly, false
	case "3D000":
		return false, noDatabase, false
	case "53100":
		return false, diskFull, false
	case "53300":
		return true, crowded, false
	case "57P01", "57P02", "57P03":
		return true, starting, false
	case "55P03", "57014":
		return true, conflict, false
	case "54000":
		return false, "", true
	}
	switch state[:2] {
	case "40":
		return true, conflict, false
	case "08":
		return true, "the connection was lost", false
	case "28":
		return false, refused, false
	}
	return false, "the server refuses the statement", false
}

func mysqlFault(number int) (again bool, text string, large bool) {
	switch number {
	case 1146:
		return false, noTable, false
	case 1054:
		return false, otherTable, false
	case 1142, 1143:
		return false, noRight, false
	case 1290, 1792, 1836:
		return false, readOnly, false
	case 1044, 1049:
		return false, noDatabase, false
	case 1045:
		return false, refused, false
	case 1021, 1114:
		return false, diskFull, false
	case 1040, 1203:
		return true, crowded, false
	case 1053, 1927:
		return true, starting, false
	case 1205, 1213:
		return true, conflict, false
	case 1158, 1159, 1160, 1161:
		return true, "the connection was lost", false
	case 1153, 1301:
		return false, "", true
	}
	return false, "the server refuses the statement", false
}

func sqliteFault(code int, text string) (again bool, told string, large bool) {
	switch code {
	case 1:
		if strings.Contains(text, "no such table") {
			return false, noTable, false
		}
		if strings.Contains(text, "no such column") || strings.Contains(text, "has no column") {
			return false, otherTable, false
		}
	case 5, 6:
		return true, "another connection holds the lock of the file", false
	case 8:
		return false, "the file is read-only", false
	case 10:
		return false, "the disk fails", false
	case 11, 26:
		return false, "the file is corrupt, or no database", false
	case 13:
		return false, diskFull, false
	case 14:
		return false, "the file cannot be opened", false
	case 17:
		return true, "the schema has changed", false
	case 18:
		return false, "", true
	}
	return false, "the database refuses the statement", false
}

// lost says what is known about an error that does not come from a database.
func lost(err error) string {
	var op *net.OpError
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	switch {
	case errors.As(err, &dns):
		return "the server's name is not known"
	case errors.As(err, &certificate), errors.As(err, &authority):
		return "the server's certificate is not trusted"
	case errors.As(err, &op) && op.Op == "dial":
		return fmt.Sprintf("no connection: %v", op)
	}
	return "the connection was lost"
}
