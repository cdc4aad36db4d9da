// Package hidden tests, against real servers, what package sqlx claims of the connections
// that drivers open behind one's back, and of those that end while nobody looks.
package hidden
