<?php
// PHP: random numbers, times, unique names, files, processes.
echo microtime(true), ' ', hrtime(true), ' ', getmypid(), ' ', mt_rand(), ' ', random_int(0, PHP_INT_MAX), ' ', uniqid('', true), ' ', lcg_value(), "\n";
echo bin2hex(random_bytes(8)), ' ', password_hash('secret', PASSWORD_BCRYPT, ['cost' => 4]), ' ', spl_object_id(new stdClass), ' ', gethostname(), "\n";
$letters = range('a', 'p');
shuffle($letters);
echo implode($letters), ' ', tempnam('/tmp', 'x'), ' ', sys_getloadavg()[0], ' ', memory_get_usage(), "\n";
$children = [];
for ($n = 0; $n < 5; $n++) $children[$n] = proc_open(['sh', '-c', "sleep 0.00" . (7 - $n) . "; echo child $n; exit $n"], [], $pipes);
foreach ($children as $child) echo proc_close($child), ' ';
echo "\n", print_r(scandir('/work/tree', SCANDIR_SORT_NONE), true), json_encode(stat('/work/tree')), "\n";
usleep(3000);
echo date('c'), "\n";
