package sessplus

import (
	"context"
	"errors"
	"net/http"
)

// Handler is the middleware: it loads the sessions of a request, runs next with them in the request's context, and commits
// them before the response headers go. If they cannot be loaded the ErrorHandler answers, and next does not run. A
// Manager that is in the chain twice acts once; different Managers nest.
//
// A response with a status of 500 or more, and a panic, save nothing. When a save fails before the headers have gone, the
// ErrorHandler answers, and what next writes goes nowhere.
func (m *Manager) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.find(r.Context()) != nil {
			next.ServeHTTP(w, r)
			return
		}
		outer, _ := FromContext(r.Context())
		s := m.newSession(w, r, outer)
		if err := s.loadEager(); err != nil {
			m.onError(w, r, err)
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), contextKey{}, s))
		sw := &writer{ResponseWriter: w, s: s, r: r}
		panicked := true
		defer func() {
			if panicked {
				s.passBy()
			}
		}()
		next.ServeHTTP(wrap(sw), r)
		panicked = false
		if sw.commit(http.StatusOK); sw.err == nil && !sw.rejected {
			s.commit(true, false) // what was changed after the headers
		}
	})
}

// defaultErrorHandler answers in plain text that says nothing of the inside, and logs the error.
func (m *Manager) defaultErrorHandler(w http.ResponseWriter, r *http.Request, err error) {
	status, text := http.StatusInternalServerError, "The request could not be completed."
	switch {
	case errors.Is(err, ErrUnavailable):
		status, text = http.StatusServiceUnavailable, "The service is temporarily unavailable. Please try again."
	case errors.Is(err, ErrSessionGone):
		status, text = http.StatusConflict, "Your session has ended. Please reload the page."
	}
	m.log.ErrorContext(r.Context(), "sessplus: a request failed", "status", status, "error", err)
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, text, status)
}
