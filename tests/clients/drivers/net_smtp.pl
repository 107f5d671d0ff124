# Perl's Net::SMTP, with the content as the program wrote it.
use strict;
use warnings;
use JSON::PP;
use Net::SMTP;

my $asked = decode_json(do { local $/; <STDIN> });
my $given = $asked->{settings};
my @tls = $given->{ca} ? (SSL_ca_file => $given->{ca}) : ();
my $smtp = Net::SMTP->new($given->{host}, Port => $given->{port}, Hello => 'client.example.com', Timeout => 20,
    SSL => $given->{tls} eq 'implicit', @tls) or die "no connection: $@";
$smtp->starttls(@tls) or die $smtp->message if $given->{tls} eq 'starttls';
$smtp->auth($given->{user}, $given->{password}) or die $smtp->message if defined $given->{user};

my @told;
for my $mail (@{ $asked->{mails} }) {
    my @mail = (Bits => 8, $mail->{dsn} ? (Return => 'HDRS', Envelope => 'order-17') : ());
    my @rcpt = $mail->{dsn} ? { Notify => [split /,/, $mail->{dsn}] } : ();
    my $text = $mail->{text};
    utf8::encode($text);
    my $ok = $smtp->mail($mail->{sender}, @mail);
    $ok &&= $smtp->recipient($_, @rcpt) for @{ $mail->{to} }, @{ $mail->{cc} }, @{ $mail->{bcc} };
    $ok &&= $smtp->data(
        "From: $mail->{sender}\n", 'To: ' . join(', ', @{ $mail->{to} }) . "\n", "Subject: an order\n",
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n", $text);
    push @told, $ok ? { ok => JSON::PP::true } : { ok => JSON::PP::false, error => $smtp->code . ' ' . $smtp->message };
    $smtp->reset unless $ok;
}
$smtp->quit;
print encode_json(\@told);
