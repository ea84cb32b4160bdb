# Perl: forks, pipes, hash order, random numbers, times, signals.
use strict;
use warnings;
use Time::HiRes qw(time usleep);
use File::Temp qw(tempfile);
my %ages = map { $_ => 1 } 'a' .. 'p';
print join(',', keys %ages), ' ', time, " $$ ", rand, "\n";
pipe(my $reader, my $writer) or die;
for my $me (0 .. 5) {
    next if fork;
    close $reader;
    for my $step (0 .. 30) { syswrite $writer, "$me.$step\n"; usleep 100 if $step == $me * 5 }
    exit $me;
}
close $writer;
print map { s/\n/ /r } <$reader>;
print "\n";
while ((my $child = wait) > 0) { print "$child ended ", $? >> 8, "\n" }
my ($handle, $name) = tempfile();
print "$name ", join(',', (stat $handle)[0, 1, 9]), "\n";
local $SIG{ALRM} = sub { print "alarm ", time, "\n" };
Time::HiRes::alarm(0.01);
select undef, undef, undef, 0.05;
opendir my $dir, '/work/tree';
print join(' ', readdir $dir), "\n", {}, "\n", `echo from a child \$\$`;
