; SBCL: random state, clocks, addresses, garbage, threads.
(setf *random-state* (make-random-state t))
(format t "~a ~a ~a ~a~%" (random 1000000000) (get-universal-time) (get-internal-real-time) (sxhash "text"))
(defvar *log* nil)
(defvar *lock* (sb-thread:make-mutex))
(let ((threads (loop for me below 5 collect
        (let ((me me))
          (sb-thread:make-thread (lambda ()
            (dotimes (step 100)
              (sb-thread:with-mutex (*lock*) (push me *log*))
              (when (= (mod step 30) me) (sleep 0.0005))
              (make-array 5000))))))))
  (mapc #'sb-thread:join-thread threads))
(format t "~{~a~}~%~a~%" *log* (sb-kernel:get-lisp-obj-address *log*))
